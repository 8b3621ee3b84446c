import os
import stat
from pathlib import Path

import pytest

from pytest_defuse.runtime.files import replace_file, replace_text


def test_text_is_utf8_with_newlines(tmp_path: Path) -> None:
    replace_text(tmp_path / "new" / "folder" / "a.txt", "é\nb\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == "é\nb\n".encode()


def test_new_text_replaces_old_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old and long")
    replace_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_unchanged(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise error

    with pytest.raises(error):
        replace_file(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_while_the_new_one_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"

    replace_file(path, write)
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="file modes are of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_file_has_the_mode_of_any_other_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_text(tmp_path / "a.txt", "")
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
