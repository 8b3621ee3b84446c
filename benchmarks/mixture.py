"""The mixture compared with scikit-learn's BayesianGaussianMixture: seconds and differences of the results.

    python benchmarks/mixture.py [--device cuda] [--iterations 100]

Both start from the same responsibilities with the same priors. DEFUSE_DATA is the folder that contains MNIST.
"""

import argparse
import os
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture
from subjects import DATA
from threadpoolctl import threadpool_info
from torchvision.datasets import MNIST

from pytest_defuse.discover.mixture import Array, Mixture, Prior, fit_from

COUNT, DIM = 50_010, 10


class StartedMixture(BayesianGaussianMixture):
    """scikit-learn's mixture with the initial responsibilities as an attribute; it has no argument for them."""

    responsibilities: Array

    def _initialize_parameters(self, codes: Array, random_state: Any, xp: Any = None) -> None:
        self._initialize(codes, self.responsibilities)


def codes_of(images: Array) -> Array:
    """The first principal components of the images, float64 n x 10, scaled to a standard deviation of 1 overall."""
    flat = images.reshape(len(images), -1) / 255
    flat -= flat.mean(0)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    codes: Array = flat @ vectors[:, -DIM:]
    return codes / codes.std()


def scikit_learn(codes: Array, start: Array, prior: Prior, max_iter: int) -> StartedMixture:
    """scikit-learn's mixture after ``max_iter`` iterations."""
    mixture = StartedMixture(
        n_components=start.shape[1],
        weight_concentration_prior=prior.concentration,
        mean_prior=prior.mean,
        mean_precision_prior=prior.mean_precision,
        covariance_prior=prior.covariance,
        degrees_of_freedom_prior=prior.degrees_of_freedom,
        reg_covar=0,
        max_iter=max_iter,
        tol=0,
    )
    mixture.responsibilities = start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter ends it on purpose
        return mixture.fit(codes)


def timed(
    codes: Array, start: Array, prior: Prior, max_iter: int, device: str, dtype: torch.dtype
) -> tuple[float, Mixture]:
    """Seconds with transfers to the device, and the mixture; two iterations before warm the device up."""
    fit_from(codes, start, prior, max_iter=2, tolerance=-1, device=device, dtype=dtype)
    begin = time.perf_counter()
    mixture = fit_from(codes, start, prior, max_iter=max_iter, tolerance=-1, device=device, dtype=dtype)
    return time.perf_counter() - begin, mixture


def difference(one: Mixture, other: StartedMixture) -> float:
    """The largest difference of means, covariances, counts and lower bound, relative to the largest value of each."""
    counts = other.degrees_of_freedom_ - other.degrees_of_freedom_prior_
    pairs = [
        (one.means, other.means_),
        (one.covariances, other.covariances_),
        (one.kind_counts.sum(axis=1), counts),
        (np.array(one.lower_bound), np.array(other.lower_bound_)),
    ]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="also time this device, such as cuda")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--no-reference", action="store_true", help="skip scikit-learn, which takes minutes")
    arguments = parser.parse_args()
    if not (DATA / "MNIST").is_dir():
        sys.exit(f"skipped: no MNIST in {DATA}; set DEFUSE_DATA to the folder that contains it.")
    codes = codes_of(MNIST(str(DATA)).data[:COUNT].numpy())
    prior = Prior.of(codes, arguments.components)
    start = np.random.default_rng(0).dirichlet(np.full(arguments.components, 0.1), COUNT)
    threads = {f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()}
    print(f"{COUNT:,} x {DIM} codes (principal components of MNIST), K = {arguments.components},")
    print(f"{arguments.iterations} iterations from equal responsibilities and priors; transfers included, no k-means.")
    print(f"threads: torch {torch.get_num_threads()}; {', '.join(sorted(threads))}; cores {os.cpu_count()}")
    print(f"\n{'':34}{'seconds':>9}{'per iteration':>15}{'ratio':>8}  largest difference")

    def row(name: str, seconds: float, ratio: str = "", note: str = "") -> None:
        print(f"{name:34}{seconds:9.2f}{seconds / arguments.iterations * 1e3:12.1f} ms{ratio:>8}  {note}", flush=True)

    cpu, double = timed(codes, start, prior, arguments.iterations, "cpu", torch.float64)
    row("this mixture, CPU, float64", cpu)
    reference, slow = None, None
    if not arguments.no_reference:
        begin = time.perf_counter()
        reference = scikit_learn(codes, start, prior, arguments.iterations)
        slow = time.perf_counter() - begin
        row("scikit-learn, CPU, float64", slow, "1.0")
        row("this mixture, CPU, float64", cpu, f"{slow / cpu:.1f}", f"{difference(double, reference):.1e}")
    runs = [("CPU", "cpu", torch.float32)]
    if arguments.device != "cpu":
        name = torch.cuda.get_device_name(arguments.device) if arguments.device.startswith("cuda") else arguments.device
        runs += [(name, arguments.device, torch.float64), (name, arguments.device, torch.float32)]
    print("\nratio: seconds of this mixture on the CPU in float64, divided by the seconds of")
    for name, device, dtype in runs:
        seconds, mixture = timed(codes, start, prior, arguments.iterations, device, dtype)
        note = f"lower bound {mixture.lower_bound:.6e} (CPU, float64: {double.lower_bound:.6e})"
        row(f"{name}, {str(dtype)[6:]}", seconds, f"{cpu / seconds:.1f}", note)


if __name__ == "__main__":
    main()
