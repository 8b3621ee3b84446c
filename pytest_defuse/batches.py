"""Forward passes in batches that fit into memory and round alike."""

from collections.abc import Callable

import torch
from torch import Tensor

from pytest_defuse.errors import DefuseError

GRANULE = 32
"""Batches are filled up to a multiple of this: kernels for smaller ones round differently."""


class Batches:
    """Runs a function over the rows of a tensor, so many at a time.

    The result for a row does not depend on its neighbours: the last batch is filled up with copies
    of its last row to a multiple of ``GRANULE``, and such batches are bit-exact among themselves on
    the CPUs that this was tried on. When a device runs out of memory the size is halved, for good.

    Args:
        size: rows a batch.
    """

    def __init__(self, size: int = 256) -> None:
        self.size = size

    def __call__(self, run: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """``run`` over all rows (at least one), as one tensor.

        Raises:
            DefuseError: memory does not suffice for a batch of ``GRANULE`` rows.
        """
        results: list[Tensor] = []
        start = 0
        while start < len(rows):
            batch = rows[start : start + self.size]
            missing = -len(batch) % GRANULE
            filled = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing else batch
            try:
                result = run(filled)
            except torch.OutOfMemoryError as error:
                if self.size <= GRANULE:
                    raise DefuseError(
                        f"The device has too little memory for a batch of {GRANULE} images: free some of it, or take "
                        "another device with --defuse-device."
                    ) from error
                self.size = max(GRANULE, self.size // 2)
                continue
            results.append(result[: len(batch)] if missing else result)
            start += len(batch)
        return torch.cat(results)
