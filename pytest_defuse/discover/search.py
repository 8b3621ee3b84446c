"""The search for failures: latent codes near training images whose decoded image the model gets wrong.

Noise depends on (seed, image, draw) alone, so the codes of random draws are bit-exact whatever the batch size, the
order, the number of processes or interruptions. The adaptive search goes where failures were found, and whether a draw
fails is subject to rounding (:class:`~pytest_defuse.discover.evaluator.Evaluator`): on one machine the result is the
same, between devices it is equal up to float rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.evaluator import Evaluator
from pytest_defuse.discover.failed_draws import FailedDraws, occurrence_numbers
from pytest_defuse.discover.gradient_search import gradient_search
from pytest_defuse.discover.journal import Journal, Piece
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.progress import Advance, Progress

VERSION = "4"
"""Version of what a piece of the journal means; a search begun by another version is not continued."""
PIECE_DRAWS = 4096
"""Draws in one piece of the journal, about: some seconds of work, lost at most when the search is interrupted."""
PAPER_PIECE_DRAWS = 8192
"""The same in mode ``paper``, which is faster because it evaluates no judges. Each piece ends in smaller batches, which
are slower per image; benchmarks/search.py measures the mode against a bare loop."""

MIN_ROUNDS = 8
"""Minimum number of rounds of the adaptive search; our choice."""
ROUND_PASSES = 7500
"""Forward passes per round, about, in a budget for more rounds than that: the default budget (60,000) divided by
``MIN_ROUNDS``. Images with failures get their next block of draws in the next round."""
EXPLORATION = 0.05
"""Fraction of a round's blocks that goes to images at random, so that every image gets some; our choice."""

PAPER_STAGE, ADAPTIVE_STAGE, EXPLORATION_STAGE = range(3)  # stages of the random numbers


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The failures that a search found, and the model's forward passes that it took, rechecks included."""

    failures: FailedDraws
    passes: int


@dataclass(frozen=True, eq=False)
class Draws:
    """n draws to evaluate. Where an image has more failures than it may keep, the first ones are kept.

    Attributes:
        codes: float32 n x d.
        positions: int64 n, positions in the latent images.
        draw_numbers: int64 n, number of the draw at its image.
        max_failures: int64 n, how many failures to keep at the draw's image.
    """

    codes: Tensor
    positions: Tensor
    draw_numbers: Tensor
    max_failures: Tensor


def search_failures(
    evaluator: Evaluator,
    images: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> SearchResult:
    """Search for failures with :func:`paper_search` in mode ``paper``, else with :func:`adaptive_search`."""
    run = paper_search if settings.mode == "paper" else adaptive_search
    return run(evaluator, images, settings, seed=seed, journal=journal, progress=progress)


def paper_search(
    evaluator: Evaluator,
    images: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> SearchResult:
    """The papers' Algorithm 1, literally.

    Makes ``draws`` draws z = mu + e at every image, with e_d ~ Beta(a, b), which is not centred. Keeps the ``cap``
    failures of each image with the smallest ||e||.
    """

    def piece(positions: Tensor) -> Piece:
        shape = (settings.draws, images.means.shape[1])
        streams = [random_numbers(seed, PAPER_STAGE, int(index)) for index in images.indices[positions]]
        e = torch.from_numpy(np.concatenate([stream.beta(settings.a, settings.b, shape) for stream in streams]))
        nearest_first = e.norm(dim=1).argsort(stable=True)
        repeated = positions.repeat_interleave(settings.draws)[nearest_first]
        numbers = torch.arange(settings.draws).repeat(len(positions))[nearest_first]
        codes = (images.means[repeated] + e[nearest_first]).float()
        return evaluate(evaluator, images, Draws(codes, repeated, numbers, torch.full((len(codes),), settings.cap)))

    total = len(images.indices) * settings.draws
    with progress.task("searching for failures", total) as advance:
        pieces = torch.arange(len(images.indices)).split(max(1, PAPER_PIECE_DRAWS // settings.draws))
        work = {f"paper-{number}": partial(piece, positions) for number, positions in enumerate(pieces)}
        results = _run(journal, work, advance, 0)
    return SearchResult(
        _sorted(FailedDraws.concatenate([result.failures for result in results])),
        sum(result.passes for result in results),
    )


def adaptive_search(
    evaluator: Evaluator,
    images: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> SearchResult:
    """Spend the budget where failures are likely.

    A draw is z = centre + noise * std * e with e ~ N(0, I), kept within the radius of the training codes. The search
    starts with the reconstructions that the model gets wrong. Then, in ``MIN_ROUNDS`` or more rounds, an image gets at
    most one block of ``draws`` draws per round: first images with failures, around one of these, until they have
    ``cap``; then the images with the fewest blocks, smallest logit margin first; and a few at random. In mode
    ``gradient``, :func:`~pytest_defuse.discover.gradient_search.gradient_search` moves the draws before they are
    evaluated.
    """
    passes_per_draw = 1 + (settings.steps if settings.mode == "gradient" else 0)
    blocks_spent = torch.zeros(len(images.indices), dtype=torch.int64)

    def piece(blocks: Blocks) -> Piece:
        shape = (settings.draws, images.means.shape[1])
        streams = zip(images.indices[blocks.positions].tolist(), blocks.block_numbers.tolist(), strict=True)
        e = np.stack([random_numbers(seed, ADAPTIVE_STAGE, *stream).standard_normal(shape) for stream in streams])
        offsets = blocks.noise[:, None, None] * images.std * torch.from_numpy(e)
        codes = images.within_radius((blocks.centres[:, None] + offsets).flatten(0, 1).float())
        if settings.mode == "gradient":
            codes = images.within_radius(gradient_search(evaluator, codes, images.std, settings))
        first_numbers = 1 + blocks.block_numbers[:, None] * settings.draws
        draws = Draws(
            codes=codes,
            positions=blocks.positions.repeat_interleave(settings.draws),
            draw_numbers=(first_numbers + torch.arange(settings.draws)).flatten(),
            max_failures=blocks.max_failures.repeat_interleave(settings.draws),
        )
        result = evaluate(evaluator, images, draws)
        return result | {"passes": result["passes"] + (passes_per_draw - 1) * len(codes)}

    def reconstructions() -> Piece:
        misread = (images.logit_margins <= 0).nonzero().squeeze(1)
        ones = torch.ones_like(misread)
        return evaluate(evaluator, images, Draws(images.means[misread], misread, 0 * ones, ones))

    with progress.task("searching for failures", settings.budget) as advance:
        advance(len(images.indices))  # the model has read every reconstruction
        (result,) = _run(journal, {"adaptive-0": reconstructions}, advance, 0)
        failures, passes = result.failures, result.passes + len(images.indices)
        rounds = max(MIN_ROUNDS, settings.budget // ROUND_PASSES)
        for round_number in range(1, rounds + 1):
            round_passes = max(0, settings.budget - passes) // (rounds + 1 - round_number)
            max_blocks = round_passes // (settings.draws * passes_per_draw)
            blocks = allocate(images, failures, blocks_spent, max_blocks, settings, seed, round_number)
            blocks_spent[blocks.positions] += 1
            work = {
                f"adaptive-{round_number}-{number}": partial(piece, part)
                for number, part in enumerate(blocks.split(max(1, PIECE_DRAWS // settings.draws)))
            }
            results = _run(journal, work, advance, len(failures))
            failures = FailedDraws.concatenate([failures, *(result.failures for result in results)])
            passes += sum(result.passes for result in results)
    return SearchResult(_sorted(failures), passes)


@dataclass(frozen=True, eq=False)
class Blocks:
    """n blocks of draws, each at a different image.

    Attributes:
        positions: int64 n, positions in the latent images.
        block_numbers: int64 n, how many blocks the image had before.
        centres: float32 n x d, the codes that the draws scatter around.
        noise: float32 n, standard deviation of the draws, in units of the training codes' standard deviation.
        max_failures: int64 n, how many failures to keep at the image.
    """

    positions: Tensor
    block_numbers: Tensor
    centres: Tensor
    noise: Tensor
    max_failures: Tensor

    def split(self, size: int) -> "list[Blocks]":
        """Parts of at most ``size`` blocks; none if there are no blocks."""
        if not len(self.positions):
            return []
        return [Blocks(*parts) for parts in zip(*(values.split(size) for values in vars(self).values()), strict=True)]


def allocate(
    images: LatentImages,
    failures: FailedDraws,
    blocks_spent: Tensor,
    max_blocks: int,
    settings: DiscoverySettings,
    seed: int,
    round_number: int,
) -> Blocks:
    """At most ``max_blocks`` blocks at images with fewer than ``cap`` failures; see :func:`adaptive_search`.

    Args:
        blocks_spent: int64, blocks that each of the latent images had before.
    """
    order = failures.image_indices.argsort(stable=True)
    owners = torch.searchsorted(images.indices, failures.image_indices[order])
    counts = owners.bincount(minlength=len(blocks_spent))
    is_open = (counts < settings.cap).nonzero().squeeze(1)
    with_failures, without = is_open[counts[is_open] > 0], is_open[counts[is_open] == 0]
    rates = counts[with_failures] / (1 + blocks_spent[with_failures])
    promising = with_failures[rates.argsort(descending=True, stable=True)]
    by_margin = np.lexsort((images.logit_margins[without].abs(), blocks_spent[without]))
    ranked = torch.cat([promising, without[torch.from_numpy(by_margin)]])
    numbers = random_numbers(seed, EXPLORATION_STAGE, round_number)
    shuffled = is_open[torch.from_numpy(numbers.permutation(len(is_open)))]
    explored = int(EXPLORATION * max_blocks)
    chosen = torch.cat([ranked[: max_blocks - explored], shuffled[:explored]])
    positions = torch.tensor(sorted(set(chosen.tolist())), dtype=torch.int64)
    centres = images.means[positions].clone()
    noise = torch.full((len(positions),), settings.noise)
    if len(failures):
        failed = counts[positions] > 0
        owned = counts[positions[failed]]
        starts = counts.cumsum(0) - counts
        chosen_failures = starts[positions[failed]] + blocks_spent[positions[failed]] % owned
        centres[failed] = failures.codes[order][chosen_failures]
        noise[failed] = settings.neighbour_noise
    return Blocks(positions, blocks_spent[positions], centres, noise, settings.cap - counts[positions])


def evaluate(evaluator: Evaluator, images: LatentImages, draws: Draws) -> Piece:
    """The failures among the draws, each rechecked in float32, and the model's forward passes that this took.

    Draws are rechecked only while their image may keep more failures.
    """
    source_labels = images.labels[draws.positions]
    suspects = evaluator.screen(draws.codes, source_labels).nonzero().squeeze(1)
    missing = torch.zeros(len(images.indices), dtype=torch.int64)
    missing[draws.positions] = draws.max_failures
    kept: list[FailedDraws] = []
    passes = len(draws.codes)
    while len(suspects):
        needed = occurrence_numbers(draws.positions[suspects]) < missing[draws.positions[suspects]]
        rechecked, suspects = suspects[needed], suspects[~needed]
        verdicts = evaluator.verdicts(draws.codes[rechecked], source_labels[rechecked])
        passes += len(rechecked)
        failed = rechecked[verdicts.failed]
        missing -= draws.positions[failed].bincount(minlength=len(missing))
        kept.append(
            FailedDraws(
                draws.codes[failed],
                verdicts.labels[verdicts.failed],
                verdicts.predictions[verdicts.failed],
                images.indices[draws.positions[failed]],
                draws.draw_numbers[failed],
            )
        )
        suspects = suspects[missing[draws.positions[suspects]] > 0]
    none = FailedDraws(draws.codes[:0], *[torch.zeros(0, dtype=torch.int64)] * 4)
    return {**vars(FailedDraws.concatenate([none, *kept])), "passes": torch.tensor(passes)}


def _run(
    journal: Journal, work: Mapping[str, Callable[[], Piece]], advance: Advance, failure_count: int
) -> list[SearchResult]:
    """The pieces of work, computed now or earlier; ``failure_count`` is the number of failures found before."""

    def report(piece: Piece) -> None:
        nonlocal failure_count
        failure_count += len(piece["draw_numbers"])
        advance(int(piece["passes"]), f"{failure_count:,} failures")

    pieces = journal.all(work, report)
    fields = FailedDraws.__annotations__
    return [SearchResult(FailedDraws(*(piece[name] for name in fields)), int(piece["passes"])) for piece in pieces]


def _sorted(failures: FailedDraws) -> FailedDraws:
    """By image, then by draw."""
    return failures[torch.from_numpy(np.lexsort((failures.draw_numbers, failures.image_indices)))]
