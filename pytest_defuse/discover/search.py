"""Identification: latent codes near training images whose decoded image the model gets wrong.

Noise belongs to (seed, image, draw) alone, so the codes of random draws are bit-exact whatever the
batch size, the order, the number of processes or interruptions. Which of them fail is decided as
:class:`~pytest_defuse.discover.evaluator.Evaluator` says, and the adaptive search goes where failures
were: on one machine the result is the same; between devices it is equal up to float rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.evaluator import Evaluator
from pytest_defuse.discover.failed_draws import Failures, ranks
from pytest_defuse.discover.gradient_search import ascend
from pytest_defuse.discover.journal import Journal, Piece
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.determinism import random_numbers
from pytest_defuse.runtime.progress import Advance, Progress

VERSION = "3"
"""Of what a piece of the journal means: a search that another version began is not gone on with."""
PIECE = 4096
"""Draws, about, in one piece of the journal: some seconds of work."""
PAPER_PIECE = 8192
"""The same in the papers' mode, which asks no judges: each piece ends in a small batch or two, which cost."""

ROUNDS = 8
"""At least so many; more where the budget is large, so that images with failures soon get their next block."""
ROUND = 7500
"""Forward passes, about, of one of them in a large budget."""
EXPLORATION = 0.05
"""Share of a round's blocks that go to images at random, whatever their margin, so that none is starved for ever."""

PAPER, ADAPTIVE, EXPLORING = range(3)  # the streams of random numbers


@dataclass(frozen=True, eq=False)
class Identified:
    """What a search found, and the forward passes of the model that it took, confirmations included."""

    failures: Failures
    passes: int


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws to be examined, those to be kept first before others.

    Attributes:
        codes: float32 n x d.
        at: int64 n, positions among the located images.
        numbers: int64 n, the number of each draw at its image.
        wanted: int64 n, at most so many failures of the draw's image are kept.
    """

    codes: Tensor
    at: Tensor
    numbers: Tensor
    wanted: Tensor


def identify(
    evaluator: Evaluator,
    located: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> Identified:
    """Search for failures in the mode that the settings name: :func:`paper`, or :func:`adaptive` for the others."""
    search = paper if settings.mode == "paper" else adaptive
    return search(evaluator, located, settings, seed=seed, journal=journal, progress=progress)


def paper(
    evaluator: Evaluator,
    located: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> Identified:
    """Algorithm 1 of the papers to the letter.

    z = mu + e with e_d ~ Beta(a, b), which is not centred, ``draws`` times at every image; of an image
    the ``cap`` failures of smallest ||e|| are kept.
    """

    def piece(some: Tensor) -> Piece:
        shape = (settings.draws, located.means.shape[1])
        streams = [random_numbers(seed, PAPER, int(image)) for image in located.images[some]]
        e = torch.from_numpy(np.concatenate([stream.beta(settings.a, settings.b, shape) for stream in streams]))
        nearest = e.norm(dim=1).argsort(stable=True)
        at = some.repeat_interleave(settings.draws)[nearest]
        numbers = torch.arange(settings.draws).repeat(len(some))[nearest]
        codes = (located.means[at] + e[nearest]).float()
        return examined(evaluator, located, Draws(codes, at, numbers, torch.full((len(at),), settings.cap)))

    total = len(located.images) * settings.draws
    with progress.task("searching for failures", total) as advance:
        pieces = torch.arange(len(located.images)).split(max(1, PAPER_PIECE // settings.draws))
        work = {f"paper-{number}": partial(piece, some) for number, some in enumerate(pieces)}
        found = _done(journal, work, advance, 0)
    return Identified(_in_order(Failures.joined([failures for failures, _ in found])), sum(p for _, p in found))


def adaptive(
    evaluator: Evaluator,
    located: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> Identified:
    """Spend the budget where failures are likely.

    Every draw is z = centre + noise * spread * e, e ~ N(0, I), drawn back onto the generator's
    manifold. It begins with the reconstructions that are misread. Then, in each of ``ROUNDS`` rounds or
    more, an image gets at most one block of ``draws`` draws: images with failures, until they have ``cap``,
    around one of these; then the images tried least, those of smallest margin first; and a few at
    random. In the mode ``gradient`` draws are moved by :func:`~pytest_defuse.discover.gradient_search.ascend`
    before they are examined.
    """
    per_draw = 1 + (settings.steps if settings.mode == "gradient" else 0)
    spent = torch.zeros(len(located.images), dtype=torch.int64)

    def piece(blocks: "Blocks") -> Piece:
        shape = (settings.draws, located.means.shape[1])
        streams = zip(located.images[blocks.at].tolist(), blocks.numbers.tolist(), strict=True)
        e = np.stack([random_numbers(seed, ADAPTIVE, *stream).standard_normal(shape) for stream in streams])
        offsets = blocks.noise[:, None, None] * located.spread * torch.from_numpy(e)
        codes = located.on_manifold((blocks.centres[:, None] + offsets).flatten(0, 1).float())
        if settings.mode == "gradient":
            codes = located.on_manifold(ascend(evaluator, codes, located.spread, settings))
        draws = Draws(
            codes=codes,
            at=blocks.at.repeat_interleave(settings.draws),
            numbers=(1 + blocks.numbers[:, None] * settings.draws + torch.arange(settings.draws)).flatten(),
            wanted=blocks.wanted.repeat_interleave(settings.draws),
        )
        found = examined(evaluator, located, draws)
        return found | {"passes": found["passes"] + (per_draw - 1) * len(codes)}

    def reconstructions() -> Piece:
        misread = (located.margin <= 0).nonzero().squeeze(1)
        ones = torch.ones_like(misread)
        return examined(evaluator, located, Draws(located.means[misread], misread, 0 * ones, ones))

    with progress.task("searching for failures", settings.budget) as advance:
        advance(len(located.images))  # the model has read every reconstruction
        ((failures, passes),) = _done(journal, {"adaptive-0": reconstructions}, advance, 0)
        passes += len(located.images)
        rounds = max(ROUNDS, settings.budget // ROUND)
        for turn in range(1, rounds + 1):
            affordable = max(0, settings.budget - passes) // (rounds + 1 - turn) // (settings.draws * per_draw)
            blocks = allocated(located, failures, spent, affordable, settings, seed, turn)
            spent[blocks.at] += 1
            work = {
                f"adaptive-{turn}-{number}": partial(piece, some)
                for number, some in enumerate(blocks.split(max(1, PIECE // settings.draws)))
            }
            found = _done(journal, work, advance, len(failures))
            failures = Failures.joined([failures, *(some for some, _ in found)])
            passes += sum(p for _, p in found)
    return Identified(_in_order(failures), passes)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of draws, each at another image.

    Attributes:
        at: int64 n, positions among the located images.
        numbers: int64 n, how many blocks the image had before.
        centres: float32 n x d, what the draws of the block lie around.
        noise: float32 n, their standard deviation in units of the latent dimensions' spread.
        wanted: int64 n, at most so many failures are kept.
    """

    at: Tensor
    numbers: Tensor
    centres: Tensor
    noise: Tensor
    wanted: Tensor

    def split(self, size: int) -> "list[Blocks]":
        """At most ``size`` blocks each, at least one."""
        if not len(self.at):
            return []
        return [Blocks(*parts) for parts in zip(*(part.split(size) for part in vars(self).values()), strict=True)]


def allocated(
    located: LatentImages,
    failures: Failures,
    spent: Tensor,
    affordable: int,
    settings: DiscoverySettings,
    seed: int,
    turn: int,
) -> Blocks:
    """At most ``affordable`` blocks, each at another image that still wants failures; see :func:`adaptive`."""
    order = failures.images.argsort(stable=True)
    owners = torch.searchsorted(located.images, failures.images[order])
    have = owners.bincount(minlength=len(spent))
    wanting = (have < settings.cap).nonzero().squeeze(1)
    with_failures, without = wanting[have[wanting] > 0], wanting[have[wanting] == 0]
    rates = have[with_failures] / (1 + spent[with_failures])
    promising = with_failures[rates.argsort(descending=True, stable=True)]
    untried = without[torch.from_numpy(np.lexsort((located.margin[without].abs(), spent[without])))]
    anywhere = wanting[torch.from_numpy(random_numbers(seed, EXPLORING, turn).permutation(len(wanting)))]
    exploring = int(EXPLORATION * affordable)
    chosen = torch.cat([torch.cat([promising, untried])[: affordable - exploring], anywhere[:exploring]])
    at = torch.tensor(sorted(set(chosen.tolist())), dtype=torch.int64)
    centres = located.means[at].clone()
    noise = torch.full((len(at),), settings.noise)
    if len(failures):
        around = have[at] > 0
        first = have.cumsum(0) - have
        nth = first[at[around]] + spent[at[around]] % have[at[around]]
        centres[around] = failures.codes[order][nth]
        noise[around] = settings.neighbour_noise
    return Blocks(at, spent[at], centres, noise, settings.cap - have[at])


def examined(evaluator: Evaluator, located: LatentImages, draws: Draws) -> Piece:
    """The failures among the draws, each confirmed in float32, and the model's forward passes that this took.

    Draws are confirmed only while their image wants more failures.
    """
    sources = located.labels[draws.at]
    suspects = evaluator.screen(draws.codes, sources).nonzero().squeeze(1)
    missing = torch.zeros(len(located.images), dtype=torch.int64)
    missing[draws.at] = draws.wanted
    kept: list[Failures] = []
    passes = len(draws.codes)
    while len(suspects):
        chosen = ranks(draws.at[suspects]) < missing[draws.at[suspects]]
        some, suspects = suspects[chosen], suspects[~chosen]
        verdicts = evaluator.verdicts(draws.codes[some], sources[some])
        passes += len(some)
        sure = some[verdicts.failed]
        missing -= draws.at[sure].bincount(minlength=len(missing))
        kept.append(
            Failures(
                draws.codes[sure],
                verdicts.labels[verdicts.failed],
                verdicts.predictions[verdicts.failed],
                located.images[draws.at[sure]],
                draws.numbers[sure],
            )
        )
        suspects = suspects[missing[draws.at[suspects]] > 0]
    none = Failures(draws.codes[:0], *[torch.zeros(0, dtype=torch.int64)] * 4)
    return {**vars(Failures.joined([none, *kept])), "passes": torch.tensor(passes)}


def _done(
    journal: Journal, work: Mapping[str, Callable[[], Piece]], advance: Advance, before: int
) -> list[tuple[Failures, int]]:
    """The pieces of work, done now or earlier: failures, and forward passes."""
    count = before

    def finished(piece: Piece) -> None:
        nonlocal count
        count += len(piece["draws"])
        advance(int(piece["passes"]), f"{count:,} failures")

    pieces = journal.all(work, finished)
    return [(Failures(*(piece[name] for name in Failures.__annotations__)), int(piece["passes"])) for piece in pieces]


def _in_order(failures: Failures) -> Failures:
    """By image, then draw."""
    return failures[torch.from_numpy(np.lexsort((failures.draws, failures.images)))]
