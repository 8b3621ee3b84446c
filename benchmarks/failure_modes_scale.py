"""Failure modes at the size of ImageNet, from a file on disk, in 4 GB: 1,000 groups, 1,300 images, 2,048 features.

    python benchmarks/failure_modes_scale.py FOLDER [GROUPS IMAGES FEATURES]

The first run writes the file to FOLDER (10.6 GB at the default size), with the images in random order of their labels,
like a data set; the second run searches it. Half of the groups have a planted failure mode. The peak memory is that of
the process as the kernel counts it, which includes the pages of the mapped file.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from pytest_defuse.explain.failure_modes import class_groups, find_failure_modes


def written(file: Path, groups: int, images: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the features; return labels and failures. In even groups, failures are likely if feature 7 is above 1."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(groups), images))
    failed = np.zeros(groups * images, dtype=bool)
    store = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(groups * images, features))
    for start in range(0, groups * images, images):
        block = random.standard_normal((images, features), dtype=np.float32)
        even = labels[start : start + images] % 2 == 0
        failed[start : start + images] = random.random(images) < 0.1 + 0.5 * ((block[:, 7] > 1) & even)
        store[start : start + images] = block
    store.flush()
    return labels, failed


def peak() -> float:
    """The peak memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(folder: Path, groups: int = 1000, images: int = 1300, features: int = 2048) -> None:
    """Write the file if it is missing, else search it, so that the peak memory is that of the search only."""
    file = folder / f"features-{groups}-{images}-{features}.npy"
    if not file.exists():
        labels, failed = written(file, groups, images, features)
        np.savez(file.with_suffix(".npz"), labels=labels, failed=failed)
        print(f"wrote {file} ({file.stat().st_size / 1e9:.1f} GB): run again to search it")
        return
    with np.load(file.with_suffix(".npz")) as saved:
        labels, failed = saved["labels"], saved["failed"]
    mapped = np.load(file, mmap_mode="r")
    started = time.perf_counter()
    by_label = (
        group for group in class_groups([str(c) for c in range(groups)], labels, labels) if group.kind == "label"
    )
    modes = find_failure_modes(mapped, failed, by_label)
    seconds = time.perf_counter() - started
    planted = sum(mode.path[0].feature == 7 and int(mode.group.split()[1]) % 2 == 0 for mode in modes)
    print(f"{groups:,} groups of {images:,} x {features:,} in {seconds:.0f} s; peak {peak():.2f} GB")
    print(f"found {len(modes)} failure modes, among them {planted} of the {groups // 2 + groups % 2} planted ones")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
