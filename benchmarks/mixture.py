"""The mixture against scikit-learn's BayesianGaussianMixture: seconds and agreement, from one start, in one run.

python benchmarks/mixture.py [--device cuda] [--iterations 100]; DEFUSE_DATA names the folder that holds MNIST.
"""

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.mixture import BayesianGaussianMixture
from threadpoolctl import threadpool_info
from torchvision.datasets import MNIST

from pytest_defuse.discover.mixture import Array, Mixture, Prior, variational

COUNT, SIZE = 50_010, 10


class GivenStart(BayesianGaussianMixture):
    """scikit-learn's mixture from given responsibilities, which it has no argument for."""

    responsibilities: Array

    def _initialize_parameters(self, X: Array, random_state: Any, xp: Any = None) -> None:  # noqa: N803
        self._initialize(X, self.responsibilities)


def codes_of(images: Array) -> Array:
    """The first principal components of the images, float64 n x 10, of unit variance together."""
    flat = images.reshape(len(images), -1) / 255
    flat -= flat.mean(0)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    codes: Array = flat @ vectors[:, -SIZE:]
    return codes / codes.std()


def scikit_learn(codes: Array, start: Array, prior: Prior, iterations: int) -> GivenStart:
    """Its mixture after so many iterations."""
    mixture = GivenStart(
        n_components=start.shape[1],
        weight_concentration_prior=prior.concentration,
        mean_prior=prior.mean,
        mean_precision_prior=prior.precision,
        covariance_prior=prior.covariance,
        degrees_of_freedom_prior=prior.degrees,
        reg_covar=0,
        max_iter=iterations,
        tol=0,
    )
    mixture.responsibilities = start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has not converged
        return mixture.fit(codes)


def timed(codes: Array, start: Array, prior: Prior, iterations: int, device: str, dtype: torch.dtype) -> Any:
    """Seconds, the transfers included, and the mixture; after two iterations that warm the device up."""
    variational(codes, start, prior, iterations=2, tolerance=-1, device=device, dtype=dtype)
    begin = time.perf_counter()
    mixture = variational(codes, start, prior, iterations=iterations, tolerance=-1, device=device, dtype=dtype)
    return time.perf_counter() - begin, mixture


def difference(one: Mixture, other: GivenStart) -> float:
    """The largest difference of weights, means, covariances, degrees and bound, relative to each one's largest."""
    pairs = [
        (one.weights, other.weights_),
        (one.means, other.means_),
        (one.covariances, other.covariances_),
        (one.degrees, other.degrees_of_freedom_),
        (np.array(one.bounds), np.array(other.lower_bounds_)),
    ]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="also time this device against the CPU, such as cuda")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--no-reference", action="store_true", help="leave scikit-learn out: it takes minutes")
    asked = parser.parse_args()
    root = Path(os.environ.get("DEFUSE_DATA", "../shared/data"))
    if not (root / "MNIST").is_dir():
        parser.exit(message=f"Skipped: no MNIST in {root}; set DEFUSE_DATA to the folder that holds it.\n")
    codes = codes_of(MNIST(str(root)).data[:COUNT].numpy())
    prior = Prior.of(codes, asked.components)
    start = np.random.default_rng(0).dirichlet(np.full(asked.components, 0.1), COUNT)
    threads = {f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()}
    print(f"{COUNT:,} x {SIZE} codes (principal components of MNIST), K = {asked.components},")
    print(f"{asked.iterations} iterations from the same soft start, same priors; no k-means, no transfers left out.")
    print(f"threads: torch {torch.get_num_threads()}; {', '.join(sorted(threads))}; cores {os.cpu_count()}")
    print(f"\n{'':34}{'seconds':>9}{'per iteration':>15}{'ratio':>8}  largest difference")

    def row(name: str, seconds: float, ratio: str = "", note: str = "") -> None:
        print(f"{name:34}{seconds:9.2f}{seconds / asked.iterations * 1e3:12.1f} ms{ratio:>8}  {note}", flush=True)

    cpu, double = timed(codes, start, prior, asked.iterations, "cpu", torch.float64)
    row("here, CPU, float64", cpu)
    reference, slow = None, None
    if not asked.no_reference:
        begin = time.perf_counter()
        reference = scikit_learn(codes, start, prior, asked.iterations)
        slow = time.perf_counter() - begin
        row("scikit-learn, CPU, float64", slow, "1.0")
        row("here against scikit-learn", cpu, f"{slow / cpu:.1f}", f"{difference(double, reference):.1e}")
    runs = [("CPU", "cpu", torch.float32)]
    if asked.device != "cpu":
        name = torch.cuda.get_device_name(asked.device) if asked.device.startswith("cuda") else asked.device
        runs += [(name, asked.device, torch.float64), (name, asked.device, torch.float32)]
    print("\nRatio: the CPU's float64 seconds here, over:")
    for name, device, dtype in runs:
        seconds, mixture = timed(codes, start, prior, asked.iterations, device, dtype)
        note = f"bound {mixture.bounds[-1]:.6e} (CPU, float64: {double.bounds[-1]:.6e})"
        row(f"here, {name}, {str(dtype)[6:]}", seconds, f"{cpu / seconds:.1f}", note)


if __name__ == "__main__":
    main()
