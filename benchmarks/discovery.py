"""What discovery finds on real images: a table of candidates, and a store with their sheets to look at.

    python benchmarks/discovery.py [mnist|fashion|gtsrb] [--cache .benchmarks] [--mode paper --draws 500]

The mode ``paper`` is the papers' search and clustering, without judges; the papers' generator (``--generator paper``)
takes an hour to train on a core, and since the model reads its reconstructions badly, this mode takes any generator of
which it reads half. In the table the judges, who took part in the search only in the other modes, say whether fresh
draws fail. The store is CACHE/COLLECTION-MODE.
"""

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from subjects import COLLECTIONS, subject_of

from pytest_defuse.discover.cached_generator import stored_generator
from pytest_defuse.discover.candidates import store_candidates
from pytest_defuse.discover.discovery import Discovery, discover
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.plugin.progress import VisibleProgress
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject


def main() -> None:
    """Run one discovery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", nargs="?", default="mnist", choices=COLLECTIONS)
    parser.add_argument("--mode", default="default", choices=("default", "gradient", "paper"))
    parser.add_argument(
        "--budget", type=int, default=200_000, help="forward passes of the model; not in the mode paper"
    )
    parser.add_argument("--draws", type=int, default=500, help="draws at each image in the mode paper")
    parser.add_argument("--generator", default="default", choices=("default", "paper"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(".benchmarks"))
    given = parser.parse_args()
    try:
        subject = subject_of(given.collection, given.cache)
    except FileNotFoundError as error:
        sys.exit(f"skipped: {error}")
    asked: dict[str, object] = {"mode": given.mode, "generator": given.generator, "budget": given.budget}
    if given.mode == "paper":
        asked |= {"draws": given.draws, "worst_reconstruction": 0.5}
    started, spent = time.monotonic(), time.process_time()
    discovery = discover(
        subject,
        DiscoverySettings.of(asked),
        seed=given.seed,
        device=given.device,
        cache=given.cache,
        progress=VisibleProgress(nullcontext),
    )
    store = Store(given.cache / f"{given.collection}-{given.mode}")
    store_candidates(store, subject, discovery)
    save_file(adversarial(discovery, subject, given.cache), given.cache / f"{store.folder.name}.safetensors")
    print(f"{time.monotonic() - started:.0f} s, {time.process_time() - spent:.0f} CPU s; the store is {store.folder}")
    table(discovery, subject)


def adversarial(discovery: Discovery, subject: Subject, cache: Path) -> dict[str, torch.Tensor]:
    """Pictures of single failures, at most 4,000, and what they show: what the papers' baseline finetunes on."""
    shape, latent = subject.train_images.pixels.shape[1:], discovery.located.means.shape[1]
    generator = stored_generator(cache, discovery.generator_hash, shape, latent)
    chosen = torch.linspace(0, len(discovery.found) - 1, min(4000, len(discovery.found))).long()
    some = discovery.found[chosen]
    return {"pixels": torch.cat([generator.decode(part) for part in some.codes.split(256)]), "labels": some.labels}


def table(discovery: Discovery, subject: Subject) -> None:
    """One line a region that was tested."""
    print(discovery.generator)
    print(discovery.judges)
    print(f"model on training images {discovery.accuracy:.1%}, reconstructions {discovery.reconstruction_accuracy:.1%}")
    print(f"{discovery.failures:,} failures in {discovery.passes:,} passes; {len(discovery.candidates)} candidates")
    print(f"{'label':12}{'taken for':12}{'failed':>9}{'interval':>16}{'coverage':>10}")
    for tested in discovery.regions:
        names = (subject.classes[i] for i in (tested.region.label, tested.region.prediction))
        low, high = tested.interval
        print("".join(f"{name:12}" for name in names), end="")
        print(f"{tested.failed:>5}/{tested.drawn}{low:>9.1%}-{high:.1%}{tested.coverage:>10.2%}")


if __name__ == "__main__":
    main()
