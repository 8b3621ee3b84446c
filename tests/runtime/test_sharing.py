from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from pytest_defuse.runtime.sharing import Sharing


def pieces(
    done: list[int], count: int = 5, before: Callable[[], object] = lambda: None
) -> dict[str, Callable[[], int]]:
    """Squares, which note that they were worked out."""

    def square(number: int) -> int:
        before()
        done.append(number)
        return number**2

    return {f"piece-{number}": lambda number=number: square(number) for number in range(count)}


def test_one_process_computes_everything_in_order() -> None:
    done: list[int] = []
    assert Sharing().results(pieces(done)) == [0, 1, 4, 9, 16]
    assert done == [0, 1, 2, 3, 4]
    assert Sharing().results({}) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_piece_is_computed_once(tmp_path: Path, workers: int) -> None:
    done: list[int] = []
    found: list[list[int]] = []
    together = Barrier(workers)

    def work(worker: int) -> None:
        together.wait()
        found.append(Sharing(tmp_path, worker).results(pieces(done)))

    threads = [Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0, 1, 4, 9, 16]] * workers
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_workers_start_at_different_pieces(tmp_path: Path) -> None:
    done: list[int] = []
    Sharing(tmp_path, worker=7).results(pieces(done))
    assert done == [2, 3, 4, 0, 1]


def test_work_that_fails_fails_in_each_process_and_is_tried_again(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    for worker in (0, 1):
        with pytest.raises(ValueError, match="out of memory"):
            Sharing(tmp_path, worker).results({"a": fail})
    assert Sharing(tmp_path).results({"a": lambda: 1}) == [1]
