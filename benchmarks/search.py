"""Speed and yield of the search on MNIST: claims about ratios within one run.

    python benchmarks/search.py --cache .benchmarks [--budget 200000] [--draws 20000]

Data: the folder DEFUSE_DATA (default ../shared/data) in torchvision's layout. The model under test has the size of
pytorch/examples' MNIST network (12 million multiply-adds per image); judges (reference classifiers that give a second
opinion) and generator are the built-in ones. All are cached. A draw is one latent code decoded, rounded to uint8 and
classified.

1. Mode ``paper`` makes at least 4 times as many draws per second as the literal loop (one image at a time, float32),
   and at least 0.9 times as many as a bare f(decode(z)) loop with the best batch size and type. The three run in
   turns; each ratio is the median over the turns.
2. Mode ``default`` finds at least 8 times as many distinct valid failures per forward pass as uniform draws with the
   same centred noise, judges and budget. A failure is valid if the judges confidently contradict the model; at most 10
   count per image. Every forward pass counts: of the model, also on images, reconstructions and rechecks, and of the
   judges.
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

from pytest_defuse.discover.compute import CPU_BATCH_SIZES, GPU_BATCH_SIZES
from pytest_defuse.discover.failed_draws import FailedDraws, occurrence_numbers
from pytest_defuse.discover.generator import GeneratorSettings, TrainedVAE, trained_generator
from pytest_defuse.discover.journal import Journal
from pytest_defuse.discover.judge_calibration import calibrate
from pytest_defuse.discover.judges import Judges, JudgeSettings, trained_judges
from pytest_defuse.discover.latent_images import LatentImages, locate, sample_indices
from pytest_defuse.discover.search import SearchResult, search_failures
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.plugin.progress import VisibleProgress
from pytest_defuse.runtime.determinism import Stream, random_numbers
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages, quantise

TURNS = 9
"""Odd, so that the median is one of the turns."""


@dataclass(frozen=True)
class Bench:
    images: LabelledImages
    model: Classifier
    judges: Judges
    generator: TrainedVAE

    def run(self, settings: DiscoverySettings, max_images: int) -> tuple[SearchResult, LatentImages, float]:
        """Search around at most ``max_images`` images; the seconds exclude classifying reconstructions."""
        evaluator = Evaluator(self.model, None if settings.mode == "paper" else self.judges, self.generator)
        with TemporaryDirectory() as folder:
            journal = Journal(Path(folder), {})
            journal.open()
            indices = sample_indices(len(self.images), max_images, 0)
            evaluator = evaluator.fastest(self.images, indices)
            latent_images = locate(evaluator, self.images, indices, journal, Progress())
            start = time.perf_counter()
            result = search_failures(evaluator, latent_images, settings, seed=0, journal=journal, progress=Progress())
            return result, latent_images, time.perf_counter() - start


def prepare(cache: Path, device: str) -> Bench:
    training, held_out, _ = mnist()
    progress = VisibleProgress(nullcontext)
    model = model_under_test("mnist", training, 10, cache)
    common = {"seed": 0, "device": device, "cache": cache, "progress": progress}
    panel = trained_judges(training, 10, JudgeSettings(), **common)
    generator = trained_generator(training, GeneratorSettings(), judge=panel[0], **common)
    return Bench(training, Classifier(model.module, 10, device=device), calibrate(panel, held_out), generator)


@torch.inference_mode()
def literal_loop(bench: Bench, images: LatentImages, settings: DiscoverySettings, draws: int) -> float:
    """Draws per second of Algorithm 1 as it is written: one draw at a time, in float32."""
    f, decode, device = bench.model.module, bench.generator.network.decode, bench.model.device
    start, count = time.perf_counter(), 0
    for position in range(draws // settings.draws):
        failures: list[tuple[float, Tensor]] = []
        e = random_numbers(0, Stream.PAPER_DRAWS, position).beta(
            settings.a, settings.b, (settings.draws, images.latent_dim)
        )
        z = (images.means[position] + torch.from_numpy(e)).float().to(device)
        for code, norm in zip(z, np.linalg.norm(e, axis=1), strict=True):
            image = quantise(decode(code[None]).sigmoid()).float() / 255
            if f(image).argmax(dim=1).item() != images.labels[position].item():
                failures.append((float(norm), code))
            count += 1
        failures.sort(key=lambda failure: failure[0])
    return count / (time.perf_counter() - start)


@dataclass(frozen=True)
class BareLoop:
    """f(decode(z)) with one type and batch size; nothing is kept."""

    bench: Bench
    codes: Tensor
    dtype: torch.dtype
    batch_size: int

    @torch.inference_mode()
    def draws_per_second(self) -> float:
        f, decode, device = self.bench.model.module, self.bench.generator.network.decode, self.codes.device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            f(decode(self.codes[: self.batch_size]).sigmoid())
            start = time.perf_counter()
            for z in self.codes.split(self.batch_size):
                predictions = f(decode(z).sigmoid()).argmax(dim=1)
            predictions.cpu()  # waits for a GPU
            return len(self.codes) / (time.perf_counter() - start)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}, batch {self.batch_size}"


def fastest_bare_loop(bench: Bench, images: LatentImages, draws: int) -> BareLoop:
    """The loop with the best type and batch size, by the better of two runs each."""
    bench.model.module.to(memory_format=torch.channels_last)
    device = bench.model.device
    codes = images.means.repeat(-(-draws // len(images.means)), 1)[:draws].to(device)
    sizes = CPU_BATCH_SIZES if device.type == "cpu" else GPU_BATCH_SIZES
    loops = [BareLoop(bench, codes, dtype, size) for dtype in (torch.float32, torch.bfloat16) for size in sizes]
    return max(loops, key=lambda loop: max(loop.draws_per_second(), loop.draws_per_second()))


def claim_paper_mode(bench: Bench, draws: int) -> None:
    """Print the results for the first claim."""
    settings = DiscoverySettings.of({"mode": "paper"})
    images = max(1, draws // settings.draws)
    draws = images * settings.draws
    result, latent_images, _ = bench.run(settings, images)
    loop = fastest_bare_loop(bench, latent_images, draws)
    turns = []
    for _ in range(TURNS):
        seconds = bench.run(settings, images)[2]
        literal = literal_loop(bench, latent_images, settings, settings.draws)
        turns.append((draws / seconds, loop.draws_per_second(), literal))
    ours, bare, literal = (statistics.median(rates) for rates in zip(*turns, strict=True))
    to_bare, to_literal = (sorted(turn[0] / turn[other] for turn in turns) for other in (1, 2))
    print(f"accuracy on {images} reconstructions: {latent_images.reconstruction_accuracy:.1%}")
    print(f"median of {TURNS} turns; ratios: median, lowest to highest")
    print(
        f"mode paper                {ours:9,.0f} draws/s ({len(result.failures):,} failures, {result.passes:,} passes)"
    )
    for name, rate, ratios, minimum in (
        ("literal loop", literal, to_literal, 4),
        (f"bare loop, {loop}", bare, to_bare, 0.9),
    ):
        ratio = f"{statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:<29}{rate:6,.0f} draws/s; {ratio} (claim: at least {minimum})")


def uniform_search(bench: Bench, std: Tensor, noise: float, draws: int) -> SearchResult:
    """Valid failures of draws that are spread evenly over the training set; at most 10 per image."""
    evaluator = Evaluator(bench.model, bench.judges, bench.generator)
    evaluator = evaluator.fastest(bench.images, torch.arange(len(bench.images)))
    codes, _ = bench.generator.encode(bench.images.pixels)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(codes)))
    parts, passes, judge_passes = [], 0, 0
    for number, indices in enumerate(order.repeat(-(-draws // len(order)))[:draws].split(4096)):
        e = torch.from_numpy(np.random.default_rng([7, number]).standard_normal((len(indices), codes.shape[1]))).float()
        z = codes[indices] + noise * std * e
        screened = evaluator.screen(z, bench.images.labels[indices])
        suspects = screened.failed.nonzero().squeeze(1)
        verdicts = evaluator.verdicts(z[suspects], bench.images.labels[indices[suspects]])
        passes += len(z) + len(suspects)
        judge_passes += int(screened.judge_passes.sum() + verdicts.judge_passes.sum())
        failed = suspects[verdicts.failed]
        values = (verdicts.labels[verdicts.failed], verdicts.predictions[verdicts.failed])
        parts.append(FailedDraws(z[failed], *values, indices[failed], torch.zeros_like(failed)))
    failures = FailedDraws.concatenate(parts)
    return SearchResult(failures[occurrence_numbers(failures.image_indices) < 10], passes, judge_passes)


def count_distinct(failures: FailedDraws, decode: Callable[[Tensor], Tensor]) -> int:
    """The number of different images among the failures."""
    pixels = torch.cat([decode(codes).cpu() for codes in failures.codes.split(256)])
    return len(pixels.flatten(1).unique(dim=0))


def claim_default_mode(bench: Bench, budget: int) -> None:
    """Print the results for the second claim."""
    settings = DiscoverySettings.of({"budget": budget})
    result, latent_images, seconds = bench.run(settings, budget // 8)
    uniform = uniform_search(bench, latent_images.std, settings.noise, budget)
    rates = []
    for name, found in (("mode default", result), ("uniform draws", uniform)):
        rates.append(count_distinct(found.failures, bench.generator.decode) / (found.passes + found.judge_passes))
        images = len(found.failures.image_indices.unique())
        print(
            f"{name:<26}{len(found.failures):,} valid failures at {images:,} images "
            f"in {found.passes:,} passes of the model and {found.judge_passes:,} of the judges"
        )
    ours, baseline = rates
    print(f"mode default              {seconds:.0f} s")
    print(f"distinct ones per pass    {ours:.4f} and {baseline:.4f}; ratio {ours / baseline:5.2f} (claim: at least 8)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget", type=int, default=200_000, help="forward passes of the model for claim 2")
    parser.add_argument("--draws", type=int, default=20_000, help="draws of each loop for claim 1")
    arguments = parser.parse_args()
    bench = prepare(arguments.cache, arguments.device)

    print(f"threads {torch.get_num_threads()}, device {arguments.device}")
    claim_paper_mode(bench, arguments.draws)
    claim_default_mode(bench, arguments.budget)


if __name__ == "__main__":
    main()
