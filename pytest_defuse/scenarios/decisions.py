"""Decisions on scenarios: by a person, or by votes on single tiles.

Votes are counted as in the Defuse paper (section 4.1, "Annotator Labeling"): several people each give a tile a class or
"none of the above"; the majority labels the tile; a candidate is a scenario if the model is wrong on more than rho of
its tiles, and its label is the majority over the tiles.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.machine import MachineRecord
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.schema import SPLITS, ScenarioRecord, Split, VotesRecord, Voting
from pytest_defuse.scenarios.store import Store

VoteOutcome = Literal["scenario", "no scenario", "undecided"]
NONE = "none of the above"


@dataclass(frozen=True)
class TileTally:
    """The votes on one tile: class -> votes, None for none of the above."""

    split: Split
    tile: int
    votes: dict[str | None, int]

    @property
    def leaders(self) -> list[str | None]:
        """The answers with the most votes; several in a tie."""
        highest = max(self.votes.values())
        return [name for name, count in self.votes.items() if count == highest]

    @property
    def tie(self) -> bool:
        """Whether no answer has more votes than every other."""
        return len(self.leaders) > 1

    @property
    def label(self) -> str | None:
        """The class that the majority sees; None in a tie, and where the majority sees none."""
        return None if self.tie else self.leaders[0]

    @property
    def dropped(self) -> bool:
        """Whether the majority sees none of the classes."""
        return self.leaders == [None]

    @property
    def agreement(self) -> float:
        """The share of the votes that went to the majority, in (0, 1]."""
        return max(self.votes.values()) / sum(self.votes.values())


@dataclass(frozen=True)
class Tally:
    """All votes on a scenario.

    Attributes:
        tiles: those with at least one vote that counts.
        voters: annotators whose votes count.
        models: models whose votes do not count.
        outcome, label, reason: the decision that the votes give, and why.
        low_agreement: agreement below which there is a remark, in [0, 1].
    """

    tiles: tuple[TileTally, ...]
    voters: tuple[str, ...]
    models: tuple[str, ...]
    outcome: VoteOutcome
    label: str | None
    reason: str
    low_agreement: float

    @property
    def ties(self) -> list[TileTally]:
        """Tiles on which no answer has a majority."""
        return [tile for tile in self.tiles if tile.tie]

    @property
    def agreement(self) -> float:
        """The mean agreement over the tiles, in (0, 1]; NaN without votes."""
        return fmean(tile.agreement for tile in self.tiles) if self.tiles else math.nan

    @property
    def remarks(self) -> list[str]:
        """What a reviewer should know before trusting the outcome."""
        remarks = []
        if self.ties:
            remarks.append(f"tie on {_tiles(self.ties)}")
        if self.agreement < self.low_agreement:
            remarks.append(f"low agreement: {self.agreement:.0%}, below {self.low_agreement:.0%}")
        if other := [tile for tile in self.tiles if self._other(tile)]:
            remarks.append(f"another class on {_tiles(other)}")
        if dropped := [tile for tile in self.tiles if tile.dropped]:
            remarks.append(f"{NONE} on {_tiles(dropped)}")
        if self.models:
            remarks.append(f"not counted: {', '.join(self.models)} (model)")
        return remarks

    def excluded(self, split: Split) -> list[int]:
        """The tiles of a split that show none of the classes, or another class than the scenario's label."""
        return [t.tile for t in self.tiles if t.split == split and (t.dropped or self._other(t))]

    def _other(self, tile: TileTally) -> bool:
        return tile.label not in (None, self.label)


def tally(record: ScenarioRecord, machine: MachineRecord, votes: Sequence[VotesRecord], voting: Voting) -> Tally:
    """Count votes on a scenario by the rules of ``voting``."""
    counted = [vote for vote in votes if vote.kind == "human" or voting.count_models]
    tiles = []
    for split in SPLITS:
        cast = [by_split.by_tile for vote in counted if (by_split := vote.split(split))]
        for tile in sorted({tile for by_tile in cast for tile in by_tile} - set(record.sheet(split).excluded)):
            tiles.append(TileTally(split, tile, Counter(by_tile[tile] for by_tile in cast if tile in by_tile)))
    labelled = [
        (tile.label, predicted[tile.tile])
        for tile in tiles
        if tile.label is not None and (predicted := machine.tiles(tile.split).predicted) is not None
    ]
    wrong = sum(label != prediction for label, prediction in labelled)
    decision = _decision(tiles, wrong, len(labelled), voting.rho)
    voters = tuple(vote.annotator for vote in counted)
    models = tuple(vote.annotator for vote in votes if vote not in counted)
    return Tally(tuple(tiles), voters, models, *decision, voting.low_agreement)


def _decision(tiles: Sequence[TileTally], wrong: int, labelled: int, rho: float) -> tuple[VoteOutcome, str | None, str]:
    """Outcome, label and reason where the model is ``wrong`` on so many of the ``labelled`` tiles."""
    if not tiles:
        return "undecided", None, "nobody has voted"
    named = Counter(tile.label for tile in tiles if tile.label is not None)
    if not named:
        if any(tile.tie for tile in tiles):
            return "undecided", None, "a tie on every tile that shows a class"
        return "no scenario", None, f"{NONE} on every tile"
    (label, count), *others = named.most_common()
    if others and others[0][1] == count:
        return "undecided", None, f"as many tiles show {others[0][0]} as {label}"
    if not labelled:
        return "undecided", label, "the model's prediction for each tile was not recorded"
    reason = f"the model is wrong on {wrong} of {labelled} tiles"
    if wrong > rho * labelled:
        return "scenario", label, reason
    return "no scenario", label, f"{reason}, not more than {rho:.0%}"


@dataclass(frozen=True)
class Agreement:
    """Share of votes for the majority over images: mean and standard error, both in [0, 1] (Defuse, figures 6, 7)."""

    group: str
    images: int
    mean: float
    error: float


def agreement_table(tallies: Iterable[Tally]) -> list[Agreement]:
    """Agreement on the images of scenarios, of other candidates, and of both together."""
    groups: dict[str, list[float]] = {"scenarios": [], "others": [], "both": []}
    for votes in tallies:
        for group in ("scenarios" if votes.outcome == "scenario" else "others", "both"):
            groups[group] += (tile.agreement for tile in votes.tiles)
    return [_agreement(group, values) for group, values in groups.items()]


def _agreement(group: str, values: Sequence[float]) -> Agreement:
    mean = fmean(values) if values else math.nan
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Agreement(group, len(values), mean, error)


def _tiles(tiles: Sequence[TileTally]) -> str:
    return "tile " + ", ".join(f"{tile.split} {tile.tile}" for tile in tiles)


def check_label(scenario: Scenario, label: str) -> None:
    """Raise DefuseError if the label is not one of the classes, or each image has its own label."""
    if label not in scenario.classes:
        raise DefuseError(
            f"{label!r} is not a class of {scenario.full_name}: choose from {', '.join(scenario.classes)}."
        )
    if scenario.record.labels is not None:
        raise DefuseError(
            f"Each image of {scenario.full_name} has its own label: to accept it, set status in {scenario.yaml}."
        )


def decide(scenario: Scenario, label: str | None, expected: str | None = None, **changes: Any) -> Scenario:
    """Accept a scenario under a label, or reject it with None.

    Args:
        expected: sha256 of the scenario.yaml that the decision is based on; by default as ``scenario`` was read.
        changes: further keys of scenario.yaml.

    Raises:
        ChangedError: scenario.yaml is another file now; nothing was written.
        DefuseError: the scenario cannot have this label; nothing was written.
    """
    if label is not None:
        check_label(scenario, label)
    status = "rejected" if label is None else "accepted"
    expected = scenario.sha256 if expected is None else expected
    return Store.of(scenario).update(scenario.id, expected, status=status, label=label, **changes)


def tally_of(scenario: Scenario) -> Tally:
    """The votes on a scenario's tiles, counted."""
    return tally(scenario.record, scenario.machine, scenario.votes(), scenario.shared.voting)


def decide_by_votes(scenario: Scenario, votes: Tally, expected: str | None = None, **changes: Any) -> Scenario:
    """Decide as the votes say, excluding the tiles on which they see no class or another one; see :func:`decide`.

    An undecided scenario is not changed.
    """
    if votes.outcome == "undecided":
        return scenario
    if votes.outcome == "no scenario":
        return decide(scenario, None, expected, **changes)
    sheets = scenario.record.sheets.model_dump()
    for split in SPLITS:
        # New tiles come last, so that comments on those that are there stay with them.
        sheets[split]["excluded"] = list(dict.fromkeys([*sheets[split]["excluded"], *votes.excluded(split)]))
    return decide(scenario, votes.label, expected, sheets=sheets, **changes)
