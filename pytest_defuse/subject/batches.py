"""Forward passes in batches that fit into memory and round alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from pytest_defuse.runtime.errors import DefuseError

BATCH = 128
"""Images a forward pass; on a CPU larger batches are slower: their activations leave the cache."""

GRANULE = 32
"""Batches of a multiple of this many images round alike on a CPU; kernels for smaller ones do not."""


class Batches:
    """Runs a function over the rows of a tensor, so many at a time; out of memory, half as many, for good.

    Args:
        size: rows a batch.
        granule: the last batch is filled up, with copies of its last row, to a multiple of this. With
            ``GRANULE`` the result for a row does not depend on its neighbours, bit by bit, on the CPUs tried.
    """

    def __init__(self, size: int = BATCH, granule: int = 1) -> None:
        self.size = size
        self.granule = granule

    def __call__(self, run: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """``run`` over all rows (at least one), as one tensor.

        Raises:
            DefuseError: memory does not suffice for the smallest batch.
        """
        results: list[Tensor] = []
        start = 0
        while start < len(rows):
            batch = rows[start : start + self.size]
            missing = -len(batch) % self.granule
            filled = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing else batch
            try:
                result = run(filled)
            except torch.OutOfMemoryError as error:
                if self.size <= self.granule:
                    raise DefuseError(
                        f"The device has too little memory for a batch of {self.size} images: free some of it, or take "
                        "another device with --defuse-device."
                    ) from error
                self.size = max(self.granule, self.size // 2)
                continue
            results.append(result[: len(batch)] if missing else result)
            start += len(batch)
        return torch.cat(results)
