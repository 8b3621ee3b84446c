"""Correction, the verb: finetune from the current weights until the scenarios are right, and choose one model."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pytest_defuse.correct.finetune import trainable_copy
from pytest_defuse.correct.material import material
from pytest_defuse.correct.search import Search
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.trials import Trial
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_text
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True, eq=False)
class Correction:
    """All trials, and the one that was chosen on validation images and correction tiles alone.

    Attributes:
        before: the uncorrected model, scored as the trials are.
        trials: in the order in which they ran.
        chosen, control: two of them; the control has lambda 0, and the chosen one's rate, epochs and alpha.
        model, control_model: their models, where the original is, with its modes and flags.
        settings: what the correction was told.
        validation_source: where the validation images come from, in words.
        images: training and scenario images that went forward and backward, each time counted.
        folder: states on disk, from which an interrupted correction goes on; see :meth:`forget`.
    """

    before: Trial
    trials: tuple[Trial, ...]
    chosen: Trial
    control: Trial
    model: nn.Module
    control_model: nn.Module
    settings: CorrectionSettings
    validation_source: str
    images: int
    folder: Path

    def forget(self) -> None:
        """Remove the states on disk, once the outcome is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def correct(
    subject: Subject,
    scenarios: Sequence[Scenario],
    least: Mapping[str, float],
    settings: CorrectionSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path,
    progress: Progress | None = None,
) -> Correction:
    """Finetune copies of the subject's model until the scenarios are right, and choose the mildest that mends.

    Held-out tiles and the test set's labels are not looked at. Interrupted, the same call goes on from the last
    epoch; on the CPU it ends with the same bits, on a GPU as far as its kernels are deterministic.

    Args:
        scenarios: accepted ones, each with a label.
        least: the least accuracy of each scenario, by id, in [0, 1].
        cache: the folder in which unfinished work is kept.

    Raises:
        DefuseError: there is nothing to correct, or the model has no parameter that may change.
    """
    settings = settings or CorrectionSettings()
    if not scenarios:
        raise DefuseError(
            "There is nothing to correct: no scenario is accepted. Run pytest --defuse-discover, look at the "
            "candidates, and accept what you can label."
        )
    if settings.distill and settings.train_step:
        raise DefuseError(
            "defuse_correct(distill=..., train_step=...): a train_step chooses its own images, so distil in it, or "
            "leave one of the two out."
        )
    trainable_copy(subject, settings)  # refused before anything is read or scored
    with seeded(seed):
        images = material(subject, scenarios, settings, seed)
        model = Classifier(subject.model, len(subject.classes), name=f"the model of subject {subject.name!r}")
        key = fingerprint(
            "correction",
            version=3,
            model=model.hash,
            normalize=subject.normalize,
            images=images.hash,
            settings=settings.training,
            seed=seed,
            device=str(device),
        )
        folder = _work_folder(cache, key)
        search = Search(subject, images, settings, least, seed=seed, device=device, folder=folder)
        before = search.scorer.trial(subject.model, 0.0, 0.0, 0)
        chosen = search.run(progress or Progress())
        control = search.control(chosen)
        return Correction(
            before,
            tuple(search.trials),
            chosen,
            control,
            search.model(chosen),
            search.model(control),
            settings,
            images.validation_source,
            search.images,
            folder,
        )


def _work_folder(cache: Path, key: str) -> Path:
    """The folder of one correction, ignored by git as the cache is."""
    folder = cache / f"correction-{key[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (ignore := cache / ".gitignore").exists():
            replace_text(ignore, "*\n")
    except OSError as error:
        raise DefuseError(
            f"Correction keeps unfinished work in {cache}, which cannot be written ({error.strerror}): give another "
            "folder with --defuse-cache."
        ) from error
    return folder
