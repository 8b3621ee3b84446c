"""The search for failures: latent codes near training images whose decoded image the model gets wrong.

Noise depends only on (seed, image, draw), never on batch size, order, processes or interruptions. The adaptive search
depends on which draws failed, which is subject to rounding (:class:`~pytest_defuse.discover.verdicts.Evaluator`): on
one machine the result is the same, between devices it is equal up to float rounding. Judges are reference classifiers
that give a second opinion.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pytest_defuse.discover.failed_draws import Columns, FailedDraws, occurrence_numbers
from pytest_defuse.discover.gradient_search import gradient_search
from pytest_defuse.discover.journal import Journal, Piece
from pytest_defuse.discover.latent_images import LatentImages
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.determinism import Stream, random_numbers
from pytest_defuse.runtime.progress import Advance, Progress

VERSION = "5"
"""Version of the pieces in the journal; a search that another version began is not continued."""
PIECE_DRAWS = 4096
"""Approximate draws per journal piece: a few seconds of work, the most that an interruption loses. Our choice."""
PAPER_PIECE_DRAWS = 8192
"""The same in mode ``paper``, which is faster because it evaluates no judges. Each piece ends in smaller batches, which
are slower per image; benchmarks/search.py measures the mode against a bare loop."""

MIN_ROUNDS = 8
"""Minimum number of rounds of the adaptive search; our choice."""
ROUND_PASSES = 7500
"""Approximate forward passes per round, if the budget is enough for more rounds than ``MIN_ROUNDS``: the default budget
(60,000) divided by these. Images with failures get their next block of draws in the next round."""
EXPLORATION = 0.05
"""Fraction of a round's blocks at random images, so that every image is searched around; our choice."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The failures that a search found, and the forward passes that it took, one per image.

    Attributes:
        passes: of the model, on images, reconstructions, draws and rechecks, and in gradient steps.
        judge_passes: of all judges together.
    """

    failures: FailedDraws
    passes: int
    judge_passes: int


def search_failures(
    evaluator: Evaluator,
    images: LatentImages,
    settings: DiscoverySettings,
    *,
    seed: int,
    journal: Journal,
    progress: Progress,
) -> SearchResult:
    """Search for failures around images.

    Mode ``paper`` is the papers' Algorithm 1, literally: ``draws`` draws z = mu + e at every image, with e_d ~
    Beta(a, b), which is not centred; kept are the ``cap`` failures of each image with the smallest ||e||.

    The other modes spend the budget where failures are likely. A draw is z = centre + noise * std * e with
    e ~ N(0, I), kept within the radius of the training codes. The search starts with the reconstructions that the model
    gets wrong. Then, in ``MIN_ROUNDS`` or more rounds, an image gets at most one block of ``draws`` draws per round:
    first images with failures, around one of these, until they have ``cap``; then the images with the fewest blocks,
    smallest logit margin first; and a few at random. In mode ``gradient``,
    :func:`~pytest_defuse.discover.gradient_search.gradient_search` moves the draws before they are evaluated.

    Returns:
        The failures by image, then by draw.
    """
    is_paper = settings.mode == "paper"
    classified = 2 * len(images.indices)
    total = classified + len(images.indices) * settings.draws if is_paper else settings.budget
    with progress.task("searching for failures", total) as advance:
        advance(classified)  # the model has classified every image and its reconstruction
        search = _Search(evaluator, images, settings, seed, journal, advance)
        result = search.paper() if is_paper else search.adaptive()
    order = np.lexsort((result.failures.draw_numbers, result.failures.image_indices))
    return replace(result, failures=result.failures[torch.from_numpy(order)])


@dataclass(frozen=True, eq=False)
class _Blocks(Columns):
    """n blocks of draws, each at a different image.

    Attributes:
        positions: int64 n, positions in the latent images.
        numbers: int64 n, how many blocks the image had before.
        centres: float32 n x d, the codes that the draws scatter around.
        noise: float32 n, standard deviation of the draws, in units of the training codes' standard deviation.
    """

    positions: Tensor
    numbers: Tensor
    centres: Tensor
    noise: Tensor


@dataclass(frozen=True, eq=False)
class _Search:
    """The arguments of :func:`search_failures`."""

    evaluator: Evaluator
    images: LatentImages
    settings: DiscoverySettings
    seed: int
    journal: Journal
    advance: Advance

    def paper(self) -> SearchResult:
        positions = torch.arange(len(self.images.indices)).split(max(1, PAPER_PIECE_DRAWS // self.settings.draws))
        work = {f"paper-{n}": partial(self._paper_piece, part) for n, part in enumerate(positions)}
        return self._run(work, self._classified)

    def _paper_piece(self, positions: Tensor) -> Piece:
        draws, images, settings = self.settings.draws, self.images, self.settings
        streams = [random_numbers(self.seed, Stream.PAPER_DRAWS, int(index)) for index in images.indices[positions]]
        shape = (draws, images.latent_dim)
        e = torch.from_numpy(np.concatenate([stream.beta(settings.a, settings.b, shape) for stream in streams]))
        nearest_first = e.norm(dim=1).argsort(stable=True)
        repeated = positions.repeat_interleave(draws)[nearest_first]
        numbers = torch.arange(draws).repeat(len(positions))[nearest_first]
        codes = (images.means[repeated] + e[nearest_first]).float()
        return self._evaluate(codes, repeated, numbers, torch.full_like(images.indices, settings.cap))

    def adaptive(self) -> SearchResult:
        images, settings = self.images, self.settings
        result = self._run({"adaptive-0": self._reconstructions}, self._classified)
        spent = torch.zeros_like(images.indices)
        size = max(1, PIECE_DRAWS // settings.draws)
        rounds = max(MIN_ROUNDS, settings.budget // ROUND_PASSES)
        for number in range(1, rounds + 1):
            round_passes = max(0, settings.budget - result.passes) // (rounds + 1 - number)
            max_blocks = round_passes // (settings.draws * (1 + self._gradient_steps))
            owners = torch.searchsorted(images.indices, result.failures.image_indices)
            missing = settings.cap - owners.bincount(minlength=len(spent))
            blocks = self._allocate(result.failures, missing, spent, max_blocks, number)
            spent[blocks.positions] += 1
            parts = [blocks[start : start + size] for start in range(0, len(blocks), size)]
            work = {f"adaptive-{number}-{n}": partial(self._piece, part, missing) for n, part in enumerate(parts)}
            result = self._run(work, result)
        return result

    @property
    def _classified(self) -> SearchResult:
        """No failures yet, after the passes on the images and their reconstructions."""
        return SearchResult(self._no_failures, 2 * len(self.images.indices), 0)

    def _reconstructions(self) -> Piece:
        wrong = (self.images.logit_margins <= 0).nonzero().squeeze(1)
        zeros = torch.zeros_like(wrong)
        return self._evaluate(self.images.means[wrong], wrong, zeros, torch.ones_like(self.images.indices))

    def _allocate(
        self, failures: FailedDraws, missing: Tensor, spent: Tensor, max_blocks: int, round_number: int
    ) -> _Blocks:
        """At most ``max_blocks`` blocks. Each image, N, may keep ``missing`` more failures and had ``spent`` blocks."""
        images, settings = self.images, self.settings
        counts = settings.cap - missing
        is_open = (missing > 0).nonzero().squeeze(1)
        with_failures, without = is_open[counts[is_open] > 0], is_open[counts[is_open] == 0]
        rates = counts[with_failures] / (1 + spent[with_failures])
        promising = with_failures[rates.argsort(descending=True, stable=True)]
        by_margin = np.lexsort((images.logit_margins[without].abs(), spent[without]))
        ranked = torch.cat([promising, without[torch.from_numpy(by_margin)]])
        numbers = random_numbers(self.seed, Stream.EXPLORATION, round_number)
        shuffled = is_open[torch.from_numpy(numbers.permutation(len(is_open)))]
        explored = int(EXPLORATION * max_blocks)
        positions = torch.cat([ranked[: max_blocks - explored], shuffled[:explored]]).unique()
        centres = images.means[positions].clone()
        noise = torch.full((len(positions),), settings.noise)
        failed = counts[positions] > 0
        owned = counts[positions[failed]]
        first = (counts.cumsum(0) - counts)[positions[failed]]
        by_image = failures.codes[failures.image_indices.argsort(stable=True)]
        centres[failed] = by_image[first + spent[positions[failed]] % owned]
        noise[failed] = settings.neighbour_noise
        return _Blocks(positions, spent[positions], centres, noise)

    def _piece(self, blocks: _Blocks, missing: Tensor) -> Piece:
        images, settings = self.images, self.settings
        shape = (settings.draws, images.latent_dim)
        sources = zip(images.indices[blocks.positions].tolist(), blocks.numbers.tolist(), strict=True)
        streams = (random_numbers(self.seed, Stream.ADAPTIVE_DRAWS, *block) for block in sources)
        e = np.stack([stream.standard_normal(shape) for stream in streams])
        offsets = blocks.noise[:, None, None] * images.std * torch.from_numpy(e)
        codes = images.within_radius((blocks.centres[:, None] + offsets).flatten(0, 1).float())
        if self._gradient_steps:
            codes = images.within_radius(gradient_search(self.evaluator, codes, images.std, settings))
        positions = blocks.positions.repeat_interleave(settings.draws)
        numbers = (1 + blocks.numbers[:, None] * settings.draws + torch.arange(settings.draws)).flatten()
        piece = self._evaluate(codes, positions, numbers, missing)
        if self._gradient_steps:
            assert self.evaluator.judges is not None
            # The judges also see each draw before the first step.
            judge_passes = (self._gradient_steps + 1) * len(self.evaluator.judges.panel) * len(codes)
            piece["passes"] += self._gradient_steps * len(codes)
            piece["judge_passes"] += judge_passes
        return piece

    @property
    def _gradient_steps(self) -> int:
        return self.settings.steps if self.settings.mode == "gradient" else 0

    def _evaluate(self, codes: Tensor, positions: Tensor, numbers: Tensor, missing: Tensor) -> Piece:
        """The failures among draws, rechecked in float32, and the forward passes that this took.

        ``positions`` and ``numbers``, int64 n, are those of the image and of the draw at this image; ``missing``, int64
        N, is how many more failures each image may keep.
        """
        source_labels = self.images.labels[positions]
        screened = self.evaluator.screen(codes, source_labels)
        suspects = screened.failed.nonzero().squeeze(1)
        kept, passes, judge_passes = [self._no_failures], len(codes), screened.judge_passes.sum()
        while len(suspects):
            needed = occurrence_numbers(positions[suspects]) < missing[positions[suspects]]
            rechecked, suspects = suspects[needed], suspects[~needed]
            verdicts = self.evaluator.verdicts(codes[rechecked], source_labels[rechecked])
            passes += len(rechecked)
            judge_passes = judge_passes + verdicts.judge_passes.sum()
            failed, verdicts = rechecked[verdicts.failed], verdicts[verdicts.failed]
            at = positions[failed]
            missing = missing - at.bincount(minlength=len(missing))
            draws = FailedDraws(
                codes[failed], verdicts.labels, verdicts.predictions, self.images.indices[at], numbers[failed]
            )
            kept.append(draws)
            suspects = suspects[missing[positions[suspects]] > 0]
        counts = {"passes": torch.tensor(passes), "judge_passes": judge_passes}
        return {**vars(FailedDraws.concatenate(kept)), **counts}

    @property
    def _no_failures(self) -> FailedDraws:
        return FailedDraws(self.images.means[:0], *[self.images.indices[:0]] * 4)

    def _run(self, work: Mapping[str, Callable[[], Piece]], found: SearchResult) -> SearchResult:
        """What was found so far, and what the pieces of work find, now or earlier."""
        passes, judge_passes, count = found.passes, found.judge_passes, len(found.failures)

        def report(piece: Piece) -> None:
            nonlocal count
            count += len(piece["draw_numbers"])
            self.advance(int(piece["passes"]), f"{count:,} failures")

        parts = [found.failures]
        for piece in self.journal.all(work, report):
            passes += int(piece.pop("passes"))
            judge_passes += int(piece.pop("judge_passes"))
            parts.append(FailedDraws(**piece))
        return SearchResult(FailedDraws.concatenate(parts), passes, judge_passes)
