"""Correction: finetune the model from its current weights until the scenarios are fixed, and choose one trial."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pytest_defuse.correct.data import correction_data
from pytest_defuse.correct.finetune import Finetuning, trainable_copy
from pytest_defuse.correct.search import Search
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.trials import Trial
from pytest_defuse.runtime.cache import folder_for
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.fingerprint import fingerprint
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True, eq=False)
class Correction:
    """All trials, and the one that was chosen, which depends only on validation images and correction tiles.

    Attributes:
        before: the uncorrected model, evaluated like a trial.
        trials: in the order in which they were evaluated.
        chosen, control: two of them; the control has lambda 0, and the learning rate, epochs and alpha of the chosen.
        model, control_model: their models, on the device of the original, with its modes and flags.
        image_passes: images passed forward and backward in training, now or before an interruption: training and
            scenario images of all trials and the control. A ``train_step`` counts as one pass over the training set.
        forward_passes: images passed only forward: to evaluate trials, for batch statistics of interpolated weights,
            and through the old model for ``distill``.
        folder: states on disk, from which an interrupted correction resumes.
    """

    before: Trial
    trials: tuple[Trial, ...]
    chosen: Trial
    control: Trial
    model: nn.Module
    control_model: nn.Module
    settings: CorrectionSettings
    validation_source: str
    image_passes: int
    forward_passes: int
    folder: Path

    def remove_states(self) -> None:
        """Remove the states on disk, after the outcome is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def correct(
    subject: Subject,
    scenarios: Sequence[Scenario],
    minimum: Mapping[str, float],
    settings: CorrectionSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    cache: Path,
    progress: Progress | None = None,
) -> Correction:
    """Finetune copies of the subject's model until the scenarios are fixed, and choose one of them.

    Held-out tiles and test images are not used. After an interruption, the same call resumes from a state at most a
    minute old; its result is bit-identical on a CPU, and equal up to rounding on a GPU.

    Args:
        scenarios: accepted ones, each with a label.
        minimum: bound on the accuracy of each scenario that has one, by id, in [0, 1]; for others, ``target``.
        cache: folder of unfinished work.

    Raises:
        DefuseError: there is nothing to correct, no parameter of the model may change, or its state cannot be stored.
    """
    settings, progress = settings or CorrectionSettings(), progress or Progress()
    if not scenarios:
        raise DefuseError(
            "There is nothing to correct, because no scenario is accepted: run pytest --defuse-discover, and accept "
            "candidates that you can label."
        )
    trainable_copy(subject, settings)  # errors are raised before anything is computed
    with seeded(seed, device):
        data = correction_data(subject, scenarios, settings)
        model = subject.classifier(device).identity
        parts = {"model": model.fingerprint, "images": data.hash, "settings": settings.training, "seed": seed}
        key = fingerprint("correction", version=5, device=str(device), **parts)
        folder = folder_for(cache, f"correction-{key[:16]}", {"the model": model.outputs}, progress.say)
        required = {scenario.id: minimum.get(scenario.id, settings.target) for scenario in scenarios}
        search = Search(Finetuning(subject, data, settings, seed=seed, device=device, folder=folder), required)
        before = search.scored(subject.model, 0.0, 0.0, 0)
        chosen = search.run(progress)
        control = search.control(chosen)
        return Correction(
            before=before,
            trials=tuple(search.trials),
            chosen=chosen,
            control=control,
            model=search.model(chosen),
            control_model=search.model(control),
            settings=settings,
            validation_source=data.validation_source,
            image_passes=search.image_passes,
            forward_passes=search.forward_passes,
            folder=folder,
        )
