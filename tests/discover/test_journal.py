import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pytest_defuse.discover.journal import Journal, Piece
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress

ABOUT = {"subject": "digits", "model": "m", "data": "d", "settings": "s"}


class Work:
    """Collects the numbers of the pieces that were computed."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def piece(self, number: int) -> Piece:
        self.done.append(number)
        return {"number": torch.tensor(number)}

    def pieces(self, count: int) -> dict[str, object]:
        return {f"piece-{number}": lambda number=number: self.piece(number) for number in range(count)}


def opened(folder: Path, **changes: str) -> tuple[Journal, str]:
    journal = Journal(folder, ABOUT | changes)
    return journal, journal.open()


def numbers(pieces: list[Piece]) -> list[int]:
    return [int(piece["number"]) for piece in pieces]


def test_finished_pieces_are_not_computed_again(tmp_path: Path) -> None:
    first, second = Work(), Work()
    journal, message = opened(tmp_path)
    assert message == ""
    assert numbers(journal.all(first.pieces(3), lambda piece: None)) == [0, 1, 2]
    reported: list[Piece] = []
    journal, message = opened(tmp_path)
    assert message == "resuming this search after 3 finished pieces"
    assert numbers(journal.all(second.pieces(5), reported.append)) == [0, 1, 2, 3, 4]
    assert second.done == [3, 4]
    assert len(reported) == 5


def test_a_damaged_piece_is_computed_again(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    journal.all(Work().pieces(2), lambda piece: None)
    file = journal.folder / "piece-1.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    again = Work()
    assert numbers(journal.all(again.pieces(2), lambda piece: None)) == [0, 1]
    assert again.done == [1]


@pytest.mark.parametrize("part", ["model", "data", "settings"])
def test_another_search_is_a_new_one_and_says_why(tmp_path: Path, part: str) -> None:
    journal, _ = opened(tmp_path)
    journal.once("piece", lambda: {"number": torch.tensor(1)})
    other, message = opened(tmp_path, **{part: "changed"})
    assert message == f"starting a new search because {part} changed"
    assert int(other.once("piece", lambda: {"number": torch.tensor(2)})["number"]) == 2
    back, _ = opened(tmp_path)
    assert int(back.once("piece", lambda: {"number": torch.tensor(3)})["number"]) == 1


def test_other_outputs_start_another_search_and_rounding_does_not(tmp_path: Path) -> None:
    def piece(value: int, logits: float) -> tuple[int, Path, list[str]]:
        sentences: list[str] = []
        progress = Progress()
        progress.say = sentences.append
        journal = Journal(tmp_path, ABOUT, {"the model": torch.tensor([[logits, 1.0]])}, progress)
        assert journal.open() in ("", "resuming this search after 1 finished pieces")
        return int(journal.once("piece", lambda: {"number": torch.tensor(value)})["number"]), journal.folder, sentences

    first, folder, sentences = piece(1, 100.0)
    assert (first, sentences) == (1, [])
    assert piece(2, 100.1) == (1, folder, [])
    other, elsewhere, (sentence,) = piece(3, -100.0)
    assert other == 3
    assert elsewhere != folder
    assert sentence.startswith(f"the work in {folder} is not continued: it depends on the model, which has the same")
    assert piece(4, 100.0)[:2] == (1, folder)


def test_a_search_that_another_process_removed_is_finished(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    other, _ = opened(tmp_path)
    work = Work()
    assert numbers(journal.all(work.pieces(2), lambda piece: None)) == [0, 1]
    other.remove()
    assert numbers(journal.all(work.pieces(3), lambda piece: None)) == [0, 1, 2]
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_searches_of_other_subjects_are_not_mentioned(tmp_path: Path) -> None:
    opened(tmp_path, subject="signs")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "about.json").write_text("[1, ")
    (tmp_path / "unreadable" / "about.json").mkdir(parents=True)
    assert opened(tmp_path)[1] == ""


def test_an_error_in_a_piece_loses_no_finished_piece(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    work = Work()

    def broken() -> Piece:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.all({**work.pieces(2), "broken": broken}, lambda piece: None)
    again = Work()
    assert numbers(journal.all({**again.pieces(3)}, lambda piece: None)) == [0, 1, 2]
    assert again.done == [2]


def test_a_full_disk_loses_no_finished_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = opened(tmp_path)
    journal.once("first", lambda: {"number": torch.tensor(1)})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytest_defuse.runtime.cache.save_file", full)
    with pytest.raises(DefuseError, match=r"No space left on device.*--defuse-cache. Finished work is kept"):
        journal.once("second", lambda: {"number": torch.tensor(2)})
    assert {file.name for file in journal.folder.glob("*.safetensors")} == {"first.safetensors", "models.safetensors"}


def test_old_work_that_cannot_be_removed_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = opened(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pytest_defuse.runtime.cache.ABANDONED", -1)
    monkeypatch.setattr("shutil.rmtree", refuse)
    opened(tmp_path, model="another")
    assert old.folder.exists()


PROGRAM = """
import sys, time, torch
from pathlib import Path
from pytest_defuse.discover.journal import Journal

folder, seconds, log = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
journal = Journal(folder, {"subject": "digits"})
journal.open()

def work(number):
    def piece():
        with log.open("a") as file:
            file.write(f"{number}\\n")
        time.sleep(seconds)
        return {"number": torch.tensor(number)}
    return piece

pieces = journal.all({f"piece-{n}": work(n) for n in range(8)}, lambda piece: None)
assert [int(piece["number"]) for piece in pieces] == list(range(8))
"""


def process(folder: Path, seconds: float, log: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(seconds), str(log)])


@pytest.mark.slow
def test_processes_share_the_work(tmp_path: Path) -> None:
    both = [process(tmp_path, 0.3, tmp_path / f"log{n}") for n in range(2)]
    assert [p.wait(120) for p in both] == [0, 0]
    logs = [file.read_text().split() for file in tmp_path.glob("log*")]
    assert sorted(number for log in logs for number in log) == [str(number) for number in range(8)]


@pytest.mark.slow
def test_after_a_kill_the_next_process_computes_the_rest(tmp_path: Path) -> None:
    with process(tmp_path, 0.5, tmp_path / "log") as first:
        while not (tmp_path / "log").exists() or len((tmp_path / "log").read_text().split()) < 3:
            assert first.poll() is None
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
    finished = len(list(tmp_path.glob("*/piece-*.safetensors")))
    assert json.loads(next(tmp_path.glob("*/about.json")).read_text()) == {"subject": "digits"}
    assert process(tmp_path, 0, tmp_path / "again").wait(120) == 0
    assert len((tmp_path / "again").read_text().split()) == 8 - finished
