"""A seeded fuzzer over every kind of file that the product reads: each ends in a value or a sentence."""

import os
from collections import Counter
from functools import partial
from random import Random

import pytest

from pytest_defuse.runtime.cache import UnusableError
from tests.siege.bounded import Outcome, outcomes
from tests.siege.corpus import Kind, kinds

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.slow]
NAMES = (
    "store.yaml", "scenario.yaml", "machine.json", "votes", "sheet", "baseline", "results", "Label Studio",
    "Ground Truth", "cache header", "cache tensors", "state values", "state structure",
)  # fmt: skip
BATCH = 100
"""Files of one child process."""
IN_CI = 120
"""Files of each kind in CI: together they take about a minute."""
EXTERNAL = 20_000 // len(NAMES) + 1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    found = kinds(tmp_path_factory.mktemp("corpus"))
    assert tuple(found) == NAMES
    return found


def fuzz(kind: Kind, name: str, numbers: range, seed: int) -> tuple[list[Outcome], int]:
    """What each mutant ends in, and how many a plain parser reads."""
    found: list[Outcome] = []
    parsed = 0
    for start in range(numbers.start, numbers.stop, BATCH):
        batch = range(start, min(start + BATCH, numbers.stop))
        mutants = [kind.mutant(Random(f"{seed} {name} {number}")) for number in batch]
        parsed += sum(map(kind.parses, mutants))
        found += outcomes((partial(kind.read, mutant) for mutant in mutants), (UnusableError,))
    return found, parsed


def check(kind: Kind, name: str, count: int, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcomes([partial(kind.read, kind.content)])[0].kind == "value"
    found, parsed = fuzz(kind, name, range(count), seed)
    failures = [f"{name} {number}: {outcome.text}" for number, outcome in enumerate(found) if outcome.kind == "failure"]
    ends = Counter(outcome.kind for outcome in found)
    with capsys.disabled():
        print(f"{name}: {count} files, {parsed / count:.0%} get past the parser, {dict(ends)}")
    assert not failures, "\n".join(failures[:20])
    assert parsed >= count / 4
    long = [outcome.text for outcome in found if outcome.kind == "sentence" and len(outcome.text) > 20_000]
    assert not long


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_a_value_or_a_sentence(
    corpus: dict[str, Kind], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(corpus[name], name, IN_CI, 0, capsys)


@pytest.mark.external
@pytest.mark.parametrize("name", NAMES)
def test_20_000_damaged_files_are_values_or_sentences(
    corpus: dict[str, Kind], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(corpus[name], name, EXTERNAL, int(os.environ.get("FUZZ_SEED", "1")), capsys)
