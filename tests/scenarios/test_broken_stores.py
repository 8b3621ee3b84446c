import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.lookup import accepted_scenarios
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.broken import BROKEN, good_store


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good scenario in a good store."""
    return good_store(tmp_path_factory.mktemp("fixtures") / "digits")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of the good scenario's folder, in a copy of its store."""
    shutil.copytree(good.parent, tmp_path / "fixtures" / "digits")
    return tmp_path / "fixtures" / "digits" / good.name


def test_the_good_store_has_no_problem(folder: Path) -> None:
    assert verify([Store(folder.parent)]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_store_is_named_with_file_and_line(folder: Path, name: str) -> None:
    damage, file, words = BROKEN[name]
    damage(folder)
    said = [str(problem) for problem in verify([Store(folder.parent)])]
    place = os.path.normpath(folder / file.replace("{hash}", folder.name[-6:])) if file else str(folder)
    place = place.replace(folder.name, "copy") if name == "folder of another name" else place
    matching = [line for line in said if words in line]
    assert matching, said
    assert all("\n" not in line and len(line) < 400 for line in said)
    assert matching[0].startswith((f"{place}:", f"{place} ")), matching[0]


@pytest.mark.parametrize("name", BROKEN)
def test_nothing_but_a_sentence_comes_of_using_a_broken_store(folder: Path, name: str) -> None:
    damage, _, _ = BROKEN[name]
    damage(folder)
    with suppress(DefuseError):
        accepted_scenarios(folder.parents[1])
        for scenario in Store(folder.parent).scenarios():
            scenario.pixels("correction")
            scenario.pixels("held_out")
            scenario.votes()


def test_the_corpus_is_large_and_its_answers_differ() -> None:
    assert len(BROKEN) >= 60
    answers = {(file.rpartition("/")[2].partition(":")[0], words) for _, file, words in BROKEN.values()}
    assert len(answers) >= 90


@pytest.mark.parametrize(
    ("key", "new", "words"),
    [
        ("sheet_bytes: 2097152", "sheet_bytes: 100", "bytes, more than the budget of 100 in store.yaml"),
        ("tiles: 256", "tiles: 3", "images: more than the budget of 3 tiles in store.yaml"),
    ],
)
def test_a_budget_is_a_warning(folder: Path, key: str, new: str, words: str) -> None:
    path = folder.parent / "store.yaml"
    path.write_text(path.read_text().replace(key, new))
    problems = verify([Store(folder.parent)])
    assert len(problems) == 2
    assert all(problem.warning and words in problem.words for problem in problems)
    assert ": warning: " in str(problems[0]) or " warning: " in str(problems[0])


def test_too_many_scenarios_are_a_warning_at_the_budget(folder: Path) -> None:
    path = folder.parent / "store.yaml"
    path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 1"))
    shutil.copytree(folder, folder.with_name("copy"))
    warnings = [problem for problem in verify([Store(folder.parent)]) if problem.warning]
    assert [(problem.file, problem.line) for problem in warnings] == [(str(path), 5)]


def test_what_a_killed_writer_left_is_a_warning(folder: Path) -> None:
    (folder.parent / ".new-abcd_123").mkdir()
    (folder / ".scenario.yaml.0123abcd").touch()
    problems = verify([Store(folder.parent)])
    assert [problem.warning for problem in problems] == [True, True]
    assert "was left by a write that was interrupted" in problems[0].words


def test_a_file_of_an_editor_is_no_problem(folder: Path) -> None:
    (folder / ".scenario.yaml.swp").touch()
    assert verify([Store(folder.parent)]) == []
