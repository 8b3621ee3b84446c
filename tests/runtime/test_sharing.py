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


def test_alone_everything_is_done_in_order() -> None:
    done: list[int] = []
    assert Sharing().outcomes(pieces(done)) == [0, 1, 4, 9, 16]
    assert done == [0, 1, 2, 3, 4]
    assert Sharing().outcomes({}) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_piece_is_done_once_whoever_asks(tmp_path: Path, workers: int) -> None:
    done: list[int] = []
    found: list[list[int]] = []
    together = Barrier(workers)

    def work(worker: int) -> None:
        together.wait()
        found.append(Sharing(tmp_path, worker).outcomes(pieces(done)))

    threads = [Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0, 1, 4, 9, 16]] * workers
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_workers_start_at_different_pieces(tmp_path: Path) -> None:
    done: list[int] = []
    Sharing(tmp_path, worker=7).outcomes(pieces(done))
    assert done == [2, 3, 4, 0, 1]


def test_work_that_fails_fails_for_everybody_and_is_tried_again(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    for worker in (0, 1):
        with pytest.raises(ValueError, match="out of memory"):
            Sharing(tmp_path, worker).outcomes({"a": fail})
    assert Sharing(tmp_path).outcomes({"a": lambda: 1}) == [1]
