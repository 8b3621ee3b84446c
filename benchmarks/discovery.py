"""What discovery finds on real images: a table of regions, and a store with the candidates' contact sheets.

    python benchmarks/discovery.py [mnist|fashion|gtsrb] [--cache .benchmarks] [--mode paper --draws 500]

Mode ``paper`` is the papers' search and clustering, without judges (reference classifiers that give a second opinion).
The papers' generator (``--generator paper``) trains for an hour on one core. The model misclassifies many of its
reconstructions, so this mode accepts a generator if the model is correct on half of them. The judges decide in every
mode whether the fresh draws in the table fail. The store is CACHE/COLLECTION-MODE.
"""

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from subjects import COLLECTIONS, subject_of

from pytest_defuse.discover.candidates import store_candidates
from pytest_defuse.discover.discovery import Discovery, discover
from pytest_defuse.discover.generator import cached_generator
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.plugin.progress import VisibleProgress
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject


def main() -> None:
    """Run one discovery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", nargs="?", default="mnist", choices=COLLECTIONS)
    parser.add_argument("--mode", default="default", choices=("default", "gradient", "paper"))
    parser.add_argument("--budget", type=int, default=200_000, help="forward passes of the model; not in mode paper")
    parser.add_argument("--draws", type=int, default=500, help="draws at each image in mode paper")
    parser.add_argument("--generator", default="default", choices=("default", "paper"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(".benchmarks"))
    arguments = parser.parse_args()
    try:
        subject = subject_of(arguments.collection, arguments.cache)
    except FileNotFoundError as error:
        sys.exit(f"skipped: {error}")
    settings: dict[str, object] = {
        "mode": arguments.mode,
        "generator": arguments.generator,
        "budget": arguments.budget,
    }
    if arguments.mode == "paper":
        settings |= {"draws": arguments.draws, "min_reconstruction": 0.5}
    start, cpu_start = time.monotonic(), time.process_time()
    discovery = discover(
        subject,
        DiscoverySettings.of(settings),
        seed=arguments.seed,
        device=arguments.device,
        cache=arguments.cache,
        progress=VisibleProgress(nullcontext),
    )
    store = Store(arguments.cache / f"{arguments.collection}-{arguments.mode}")
    store_candidates(store, subject, discovery)
    save_file(adversarial(discovery, subject, arguments.cache), arguments.cache / f"{store.folder.name}.safetensors")
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu_start
    print(f"{seconds:.0f} s, {cpu_seconds:.0f} CPU s; the store is {store.folder}")
    table(discovery, subject)


def adversarial(discovery: Discovery, subject: Subject, cache: Path) -> dict[str, torch.Tensor]:
    """Images of at most 4,000 failures with their labels: what the papers' baseline finetunes on."""
    shape, latent_dim = subject.train_images.pixels.shape[1:], discovery.latent_images.latent_dim
    generator = cached_generator(cache, discovery.generator_hash, shape, latent_dim)
    count = len(discovery.failed_draws)
    sample = discovery.failed_draws[torch.linspace(0, count - 1, min(4000, count)).long()]
    pixels = torch.cat([generator.decode(codes) for codes in sample.codes.split(256)])
    return {"pixels": pixels, "labels": sample.labels}


def table(discovery: Discovery, subject: Subject) -> None:
    """One line for each region that was tested."""
    images = discovery.latent_images
    print(f"{images.active_dimensions} of {images.latent_dim} latent dimensions active; {discovery.judges}")
    print(f"model on training images {discovery.accuracy:.1%}, reconstructions {discovery.reconstruction_accuracy:.1%}")
    print(f"{discovery.failures:,} failures; {len(discovery.candidates)} candidates")
    print(f"{discovery.passes:,} forward passes of the model, {discovery.judge_passes:,} of the judges")
    print(f"{'label':12}{'predicted':12}{'failed':>9}{'interval':>16}{'coverage':>10}")
    for tested in discovery.regions:
        names = (subject.classes[i] for i in (tested.region.label, tested.region.prediction))
        low, high = tested.interval
        print("".join(f"{name:12}" for name in names), end="")
        print(f"{tested.failed:>5}/{tested.drawn}{low:>9.1%}-{high:.1%}{tested.coverage:>10.2%}")


if __name__ == "__main__":
    main()
