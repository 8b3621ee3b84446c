"""Forward passes in batches that fit into memory."""

from collections.abc import Callable

import torch
from torch import Tensor

from pytest_defuse.runtime.errors import DefuseError

DEFAULT_BATCH_SIZE = 128
"""Images in one forward pass. Larger batches are slower on the CPUs that we tried: activations no longer fit in the
cache."""

BATCH_MULTIPLE = 32
"""On the CPUs that we tried, batches whose size is a multiple of this use the same kernels, with the same rounding."""


class BatchRunner:
    """Runs a function on the rows of a tensor in batches; out of memory, it halves the batch size and keeps it.

    Args:
        size: rows in one batch.
        multiple_of: the last batch is padded, with copies of its last row, to a multiple of this. With
            :data:`BATCH_MULTIPLE` the bits of a row's result do not depend on the other rows.
    """

    def __init__(self, size: int = DEFAULT_BATCH_SIZE, multiple_of: int = 1) -> None:
        self.size = size
        self.multiple_of = multiple_of

    def __call__(self, run: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Run a function on all rows.

        Args:
            run: N x ... -> N x ..., one result for each row.
            rows: at least one.

        Raises:
            DefuseError: the memory is too small for the smallest batch.
        """
        results: list[Tensor] = []
        start = 0
        while start < len(rows):
            batch = rows[start : start + self.size]
            missing = -len(batch) % self.multiple_of
            padded = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing else batch
            try:
                result = run(padded)
            except torch.OutOfMemoryError as error:
                if self.size <= self.multiple_of:
                    raise DefuseError(
                        f"The device ran out of memory with a batch size of {self.size}: free some, or choose another "
                        "device with --defuse-device."
                    ) from error
                self.size = max(self.multiple_of, self.size // 2)
                continue
            results.append(result[: len(batch)] if missing else result)
            start += len(batch)
        return torch.cat(results)
