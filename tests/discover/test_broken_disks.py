"""Discovery on a disk that fills up, cannot be read, or loses the cache: one sentence, and finished work is kept."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_defuse import Subject
from pytest_defuse.discover import discovery as module
from pytest_defuse.discover.discovery import Discovery, discover
from pytest_defuse.discover.judges import JudgeSettings, JudgeShape
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime import cache as cache_module
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress
from tests.discover.test_odd_subjects import Brightness, pairs
from tests.recorder import Recorder

BRIEF = DiscoverySettings(budget=600, latent=2, generator_steps=12, min_reconstruction=0.01)


SMALL = JudgeSettings(shapes=(JudgeShape(4, 3, 1), JudgeShape(5, 3, 1)), min_steps=60, steps_per_class=1)


@pytest.fixture(autouse=True)
def small_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JudgeSettings", lambda: SMALL)


def search(cache: Path, progress: Progress | None = None) -> Discovery:
    subject = Subject("odd", Brightness(), ["dark", "bright"], pairs(60), pairs(40))
    return discover(subject, BRIEF, cache=cache, progress=progress)


def steps_by_title(progress: Recorder) -> Counter[str]:
    """The steps of each training, without those of an earlier run."""
    steps: Counter[str] = Counter()
    for report in progress.reports:
        if report.title.startswith("training") and report.note != "resumed":
            steps[report.title] += report.steps
    return steps


def same(one: Discovery, other: Discovery) -> bool:
    return one.generator_hash == other.generator_hash and torch.equal(one.failed_draws.codes, other.failed_draws.codes)


def test_a_disk_that_fills_up_is_one_sentence_and_no_training_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write of each file fails: of weights and of pieces of the search, but not of a training's state."""
    save, progress, sentences, refused = cache_module.save_file, Recorder(), [], set()

    def limited(tensors: Any, file: Path, metadata: Any) -> None:
        name = file.name.split(".safetensors")[0]
        if file.suffix != ".state" and ".state." not in file.name and name not in refused:
            refused.add(name)
            raise OSError(28, "No space left on device")
        save(tensors, file, metadata)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "save_file", limited)
        found = None
        while found is None:
            try:
                found = search(tmp_path / "full", progress)
            except DefuseError as error:
                sentences.append(str(error))
    assert len(sentences) == len(refused) > 5
    for sentence in sentences:
        assert "No space left on device" in sentence
        assert sentence.endswith("Finished work is kept, and the same command continues it.")
    undisturbed = Recorder()
    assert same(found, search(tmp_path / "other", undisturbed))
    trainings = [steps_by_title(recorder) for recorder in (progress, undisturbed)]
    assert trainings[0] == trainings[1]
    assert len(trainings[0]) == 3


def test_a_cache_that_is_deleted_again_and_again_does_not_change_the_result(tmp_path: Path) -> None:
    deleted = 0

    def delete(done: int) -> None:
        nonlocal deleted
        deleted += 1
        shutil.rmtree(tmp_path / "deleted", ignore_errors=True)

    found = search(tmp_path / "deleted", Recorder(delete))
    assert deleted > 100
    assert same(found, search(tmp_path / "kept"))


def test_a_cache_that_is_deleted_as_soon_as_it_is_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file = cache_module.replace_file

    def lose(path: Path, write: Any) -> None:
        replace_file(path, write)
        if path.name.startswith("judge") and path.suffix == ".safetensors":
            path.unlink()

    monkeypatch.setattr(cache_module, "replace_file", lose)
    with pytest.raises(DefuseError, match=r"judge-.*safetensors .*: free disk space, or name another folder"):
        search(tmp_path)


def test_a_file_that_cannot_be_read_is_computed_again(tmp_path: Path) -> None:
    """A folder in place of the file stands for every error of reading."""
    first = search(tmp_path)
    (file,) = tmp_path.glob("judge-*-1.safetensors")
    file.unlink()
    file.mkdir()
    with pytest.raises(DefuseError, match=r"judge-.*-1\.safetensors cannot be written"):
        search(tmp_path)
    file.rmdir()
    assert same(search(tmp_path), first)
