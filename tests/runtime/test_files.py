import os
import stat
import subprocess
import sys
import threading
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


@pytest.mark.skipif(os.name == "nt", reason="symbolic links of POSIX")
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "a.txt"
    link.symlink_to(target)
    for text in ("new", "newer"):
        replace_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="devices of POSIX")
@pytest.mark.parametrize("redirected", [False, True])
def test_the_output_of_the_process_gets_the_text_and_stays(tmp_path: Path, redirected: bool) -> None:
    """``--defuse-report /dev/stdout``, into a pipe and into a file."""
    link = tmp_path / "stdout"
    link.symlink_to("/dev/stdout")
    code = (
        "import sys; from pathlib import Path; from pytest_defuse.runtime.files import replace_text\n"
        "print('before', flush=True); replace_text(Path(sys.argv[1]), 'text\\n'); print('after')"
    )
    command = [sys.executable, "-c", code, str(link)]
    if redirected:
        with (tmp_path / "log").open("w") as log:
            subprocess.run(command, stdout=log, check=True)
        output = (tmp_path / "log").read_text()
    else:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == "before\ntext\nafter\n"
    assert Path("/dev/stdout").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"stdout", "log"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    replace_text(pipe, "text")
    reader.join()
    assert found == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_null_device_takes_everything() -> None:
    replace_text(Path(os.devnull), "text")
    assert not Path(os.devnull).is_file()


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.txt", "a\udcff")
    assert (tmp_path / "a.txt").read_text() == r"a\udcff"
