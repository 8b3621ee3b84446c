"""What the search finds and how fast, on MNIST: three claims, each a ratio within this run.

    python benchmarks/search.py --cache .benchmarks [--budget 200000] [--draws 20000]

Data: the folder DEFUSE_DATA (default ../shared/data) in torchvision's layout. The model under test is a network of
pytorch/examples' size (12 million multiply-adds an image); judges and generator are the built-in ones; all are kept in
the cache folder. A draw is one latent code decoded, quantised to uint8 and classified.

1. The mode ``paper`` against the literal loop (one image at a time, float32) and against a bare f(decode(z)) loop, of
   the best batch size and type: at least 4 and 0.9 times as many draws a second. One run after the other, in turns;
   the ratio is the median over the turns.
2. The mode ``default`` against uniform allocation with the same centred noise, judges and budget: distinct valid
   failures (judges sure and against the model; at most 10 an image) for a forward pass of the model, every pass
   counted: at least 8 times as many.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from generator import mnist, model_under_test
from torch import Tensor

from pytest_defuse.discover.evaluator import CPU_BATCHES, GPU_BATCHES, Evaluator
from pytest_defuse.discover.failed_draws import Failures, ranks
from pytest_defuse.discover.generator import GeneratorSettings, TrainedVAE, trained_generator
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.judge_calibration import calibrated
from pytest_defuse.discover.judges import Judges, JudgeSettings, trained_judges
from pytest_defuse.discover.latent_images import LatentImages, locate, sample
from pytest_defuse.discover.search import Identified, identify
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.plugin.progress import VisibleProgress
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages, quantise

TURNS = 9


@dataclass(frozen=True)
class Bench:
    images: LabelledImages
    model: Classifier
    judges: Judges
    generator: TrainedVAE

    def searched(self, settings: DiscoverySettings, most: int) -> tuple[Identified, LatentImages, float]:
        """The search of a mode over at most so many images, and its seconds without reading reconstructions."""
        evaluator = Evaluator(self.model, None if settings.mode == "paper" else self.judges, self.generator)
        with TemporaryDirectory() as folder:
            journal = Journal(Path(folder), {})
            journal.opened()
            located = locate(evaluator, self.images, sample(len(self.images), most, 0), journal, Progress())
            start = time.perf_counter()
            found = identify(evaluator, located, settings, seed=0, journal=journal, progress=Progress())
            return found, located, time.perf_counter() - start


def prepared(cache: Path, device: str) -> Bench:
    training, held_out, _ = mnist()
    progress = VisibleProgress(nullcontext)
    model = model_under_test("mnist", training, 10, cache)
    common = {"seed": 0, "device": device, "cache": cache, "progress": progress}
    panel = trained_judges(training, 10, JudgeSettings(), **common)
    generator = trained_generator(training, GeneratorSettings(), judge=panel[0], **common)
    return Bench(training, Classifier(model.module, 10, device=device), calibrated(panel, held_out), generator)


@torch.inference_mode()
def literal(bench: Bench, located: LatentImages, settings: DiscoverySettings, draws: int) -> float:
    """Draws a second of Algorithm 1 as it is written: image by image, its draws as one batch, in float32."""
    f, decode, device = bench.model.module, bench.generator.network.decode, bench.model.device
    start, count = time.perf_counter(), 0
    for at in range(draws // settings.draws):
        found: list[tuple[float, Tensor]] = []
        e = random_numbers(0, at).beta(settings.a, settings.b, (settings.draws, located.means.shape[1]))
        z = (located.means[at] + torch.from_numpy(e)).float().to(device)
        for code, norm in zip(z, np.linalg.norm(e, axis=1), strict=True):
            image = quantise(decode(code[None]).sigmoid()).float() / 255
            if f(image).argmax(dim=1).item() != located.labels[at].item():
                found.append((float(norm), code))
            count += 1
        found.sort(key=lambda failure: failure[0])
    return count / (time.perf_counter() - start)


@dataclass(frozen=True)
class BareLoop:
    """f(decode(z)), nothing kept, in one way to compute it."""

    bench: Bench
    codes: Tensor
    fast: torch.dtype
    batch: int

    @torch.inference_mode()
    def rate(self) -> float:
        """Draws a second."""
        f, decode, device = self.bench.model.module, self.bench.generator.network.decode, self.codes.device
        with torch.autocast(device.type, self.fast, enabled=self.fast != torch.float32):
            f(decode(self.codes[: self.batch]).sigmoid())
            start = time.perf_counter()
            for some in self.codes.split(self.batch):
                last = f(decode(some).sigmoid()).argmax(dim=1)
            last.cpu()
            return len(self.codes) / (time.perf_counter() - start)

    def __str__(self) -> str:
        return f"{str(self.fast).removeprefix('torch.')}, batch {self.batch}"


def fastest_bare_loop(bench: Bench, located: LatentImages, draws: int) -> BareLoop:
    """The way that was fastest in the better of two runs."""
    bench.model.module.to(memory_format=torch.channels_last)
    device = bench.model.device
    codes = located.means.repeat(-(-draws // len(located.means)), 1)[:draws].to(device)
    sizes = CPU_BATCHES if device.type == "cpu" else GPU_BATCHES
    loops = [BareLoop(bench, codes, fast, size) for fast in (torch.float32, torch.bfloat16) for size in sizes]
    return max(loops, key=lambda loop: max(loop.rate(), loop.rate()))


def claim_papers_mode(bench: Bench, draws: int) -> None:
    """Print the first claim's lines."""
    paper = DiscoverySettings.of({"mode": "paper"})
    images = max(1, draws // paper.draws)
    found, located, _ = bench.searched(paper, images)
    loop = fastest_bare_loop(bench, located, images * paper.draws)
    turns = []
    for _ in range(TURNS):
        seconds = bench.searched(paper, images)[2]
        turns.append((images * paper.draws / seconds, loop.rate(), literal(bench, located, paper, paper.draws)))
    ours, bare, slow = (statistics.median(rates) for rates in zip(*turns, strict=True))
    to_bare, to_literal = (sorted(turn[0] / turn[other] for turn in turns) for other in (1, 2))
    print(f"reconstructions that the model reads: {located.reconstruction_accuracy:.1%} of {images}")
    print(f"median of {TURNS} turns; ratios: median, lowest to highest")
    print(f"paper mode                {ours:9,.0f} draws/s ({len(found.failures):,} failures, {found.passes:,} passes)")
    for name, rate, ratios, least in (
        ("literal loop", slow, to_literal, 4),
        (f"bare loop, {loop}", bare, to_bare, 0.9),
    ):
        middle = f"{statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:<29}{rate:6,.0f} draws/s; {middle} (claim: at least {least})")


def uniform(bench: Bench, located: LatentImages, noise: float, passes: int) -> Failures:
    """Valid failures of draws at images chosen evenly from the whole training set; at most 10 an image."""
    evaluator = Evaluator(bench.model, bench.judges, bench.generator)
    codes, _ = bench.generator.encode(bench.images.pixels)
    evaluator.use(evaluator.fastest(codes[:512], bench.images.labels[:512]))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(codes)))
    at = order.repeat(-(-passes // len(order)))[:passes]
    parts = []
    for number, some in enumerate(at.split(4096)):
        e = torch.from_numpy(random_numbers(0, 7, number).standard_normal((len(some), codes.shape[1]))).float()
        z = codes[some] + noise * located.spread * e
        suspects = evaluator.screen(z, bench.images.labels[some]).nonzero().squeeze(1)
        verdicts = evaluator.verdicts(z[suspects], bench.images.labels[some[suspects]])
        kept = suspects[verdicts.failed]
        said = (verdicts.labels[verdicts.failed], verdicts.predictions[verdicts.failed])
        parts.append(Failures(z[kept], *said, some[kept], torch.zeros(len(kept), dtype=torch.int64)))
    failures = Failures.joined(parts)
    return failures[ranks(failures.images) < 10]


def distinct(failures: Failures, decode: Callable[[Tensor], Tensor]) -> int:
    """Different pictures among the failures."""
    pixels = torch.cat([decode(codes).cpu() for codes in failures.codes.split(256)])
    return len(pixels.flatten(1).unique(dim=0))


def claim_default_mode(bench: Bench, budget: int) -> None:
    """Print the second claim's lines."""
    default = DiscoverySettings.of({"budget": budget})
    found, located, seconds = bench.searched(default, budget // 8)
    ours = distinct(found.failures, bench.generator.decode) / found.passes
    alike = uniform(bench, located, default.noise, budget)
    even = distinct(alike, bench.generator.decode) / budget
    print(
        f"default mode              {len(found.failures):,} distinct valid failures at "
        f"{len(found.failures.images.unique()):,} images in {found.passes:,} passes, {seconds:.0f} s"
    )
    print(f"uniform allocation        {len(alike):,} at {len(alike.images.unique()):,} images in {budget:,}")
    print(f"a forward pass            {ours:.4f} against {even:.4f}; ratio {ours / even:5.2f} (claim: at least 8)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget", type=int, default=200_000, help="forward passes of the model in claim 2")
    parser.add_argument("--draws", type=int, default=20_000, help="draws of each loop in claim 1")
    arguments = parser.parse_args()
    bench = prepared(arguments.cache, arguments.device)

    print(f"threads {torch.get_num_threads()}, device {arguments.device}")
    claim_papers_mode(bench, arguments.draws)
    claim_default_mode(bench, arguments.budget)


if __name__ == "__main__":
    main()
