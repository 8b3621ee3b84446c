"""ImageNet's size: 1,000 groups of 1,300 images with 2,048 features, from a file on disk, within 4 GB.

    python benchmarks/failure_modes_scale.py FOLDER [GROUPS IMAGES FEATURES]

The file (10.6 GB at the default size) is written to FOLDER first, a group at a time, its images in no order of
labels, as a data set has them. Half of the groups has a planted failure mode. The peak is the process's own, as the
kernel counts it, pages of the mapped file included.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from pytest_defuse.explain.failure_modes import class_groups, find_failure_modes


def written(file: Path, groups: int, images: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the features; return labels and failures: feature 7 above 1 makes failure likely in even groups."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(groups), images))
    failed = np.zeros(groups * images, dtype=bool)
    store = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(groups * images, features))
    for start in range(0, groups * images, images):
        block = random.standard_normal((images, features), dtype=np.float32)
        here = labels[start : start + images]
        failed[start : start + images] = random.random(images) < 0.1 + 0.5 * ((block[:, 7] > 1) & (here % 2 == 0))
        store[start : start + images] = block
    store.flush()
    return labels, failed


def peak() -> float:
    """The most memory that this process ever had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(folder: Path, groups: int = 1000, images: int = 1300, features: int = 2048) -> None:
    """Write the file in a process of its own, so that only the search counts; then search."""
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
    right = sum(mode.path[0].feature == 7 and int(mode.group.split()[1]) % 2 == 0 for mode in modes)
    print(f"{groups:,} groups of {images:,} x {features:,} in {seconds:.0f} s; peak {peak():.2f} GB")
    print(f"{len(modes)} failure modes, {right} of them planted; {groups // 2 + groups % 2} were")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
