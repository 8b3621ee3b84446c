"""Correction: finetune from the current weights on training data and scenario images together."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from pytest_defuse.classifier import model_input
from pytest_defuse.determinism import seeded
from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.accuracy import Accuracy
from pytest_defuse.gate.gate import measured
from pytest_defuse.images import LabelledImages
from pytest_defuse.progress import Progress
from pytest_defuse.scenarios.store import Scenario
from pytest_defuse.subject import Subject


@dataclass(frozen=True)
class CorrectionSettings:
    """How the model is finetuned (Defuse, equation 5: F = L(D) + lambda * CE(D_f)).

    Attributes:
        weights: the lambdas that are tried, each from the current weights. 0 is the control: more
            training alone.
        epochs: passes over the training data, of Adam at ``rate``.
        batch, scenario_batch: training and scenario images in one step.
    """

    weights: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0)
    epochs: int = 2
    rate: float = 3e-4
    batch: int = 128
    scenario_batch: int = 64


@dataclass(frozen=True, eq=False)
class Trial:
    """One finetuned model.

    Attributes:
        weight: its lambda.
        validation: accuracy on validation images.
        scenarios: accuracy on each scenario's *correction* tiles, by id.
        model: the finetuned copy, in the training mode of the original.
    """

    weight: float
    validation: Accuracy
    scenarios: Mapping[str, Accuracy]
    model: nn.Module

    def margin(self, least: Mapping[str, float]) -> float:
        """The smallest excess of a scenario's accuracy over its bound; negative when one is missed."""
        return min(accuracy.value - least.get(name, 0.0) for name, accuracy in self.scenarios.items())


@dataclass(frozen=True, eq=False)
class Correction:
    """All trials, and the one that was chosen on validation images and correction tiles alone.

    Attributes:
        before: the uncorrected model, scored as the trials are.
        validation_source: where the validation images come from, in words.
    """

    before: Trial
    trials: tuple[Trial, ...]
    chosen: Trial
    validation_source: str


def correct(
    subject: Subject,
    scenarios: Sequence[Scenario],
    least: Mapping[str, float],
    settings: CorrectionSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Correction:
    """Finetune copies of the subject's model until the scenarios are right, and choose one.

    Chosen is the trial with the best validation accuracy among those that meet every bound on the
    correction tiles, the smaller lambda at a tie; if none does, the one that misses by least.
    Held-out tiles and the test set are not looked at.

    Args:
        scenarios: accepted ones, each with a label.
        least: the least accuracy of each scenario, by id, in [0, 1].

    Raises:
        DefuseError: there is nothing to correct, or the model has no parameter that may change.
    """
    settings = settings or CorrectionSettings()
    progress = progress or Progress()
    if not scenarios:
        raise DefuseError(
            "There is nothing to correct: no scenario is accepted. Run pytest --defuse-discover, look at the "
            "candidates, and accept what you can label."
        )
    if not any(parameter.requires_grad for parameter in subject.model.parameters()):
        raise DefuseError(
            f"Every parameter of the model of subject {subject.name!r} has requires_grad=False: leave those that "
            "correction may change at True."
        )
    with seeded(seed):
        train, validation, source = _split(subject, seed)
        tiles = {scenario.id: _labelled_tiles(scenario, subject) for scenario in scenarios}
        before = _scored(0.0, subject.model, subject, validation, tiles, device)
        steps = settings.epochs * -(-len(train) // settings.batch)
        trials = []
        with progress.task("finetuning", steps * len(settings.weights)) as advance:
            for weight in settings.weights:
                torch.manual_seed(seed)
                model = copy.deepcopy(subject.model).to(device)
                for loss in _finetune(model, subject, train, list(tiles.values()), weight, settings, device):
                    advance(1, f"lambda {weight:g}, loss {loss:.3f}")
                trials.append(_scored(weight, model, subject, validation, tiles, device))
    return Correction(before, tuple(trials), choose(trials, least), source)


def choose(trials: Sequence[Trial], least: Mapping[str, float]) -> Trial:
    """The trial that :func:`correct` takes; ``trials`` in the order of their lambdas."""
    meeting = [trial for trial in trials if trial.margin(least) >= 0]
    if meeting:
        return max(meeting, key=lambda trial: trial.validation.value)
    return max(trials, key=lambda trial: trial.margin(least))


def _finetune(
    model: nn.Module,
    subject: Subject,
    train: LabelledImages,
    tiles: Sequence[LabelledImages],
    weight: float,
    settings: CorrectionSettings,
    device: torch.device | str,
) -> Iterator[float]:
    """Train in place, yielding the loss of every step."""
    modes = [(module, module.training) for module in model.modules()]
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    model.train()
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=settings.rate)
    pixels = torch.cat([part.pixels for part in tiles])
    labels = torch.cat([part.labels for part in tiles])
    batches = -(-len(train) // settings.batch)
    for _ in range(settings.epochs):
        # Batches of even size: batch normalisation cannot train on a single image that is left over.
        for chosen in torch.randperm(len(train)).tensor_split(batches):
            some = torch.randint(len(pixels), (settings.scenario_batch if weight else 0,))
            inputs = torch.cat([train.pixels[chosen], pixels[some]]).to(device)
            targets = torch.cat([train.labels[chosen], labels[some]]).to(device)
            logits = model(model_input(inputs, subject.normalize).to(dtype))
            loss = F.cross_entropy(logits[: len(chosen)], targets[: len(chosen)])
            if weight:
                loss = loss + weight * F.cross_entropy(logits[len(chosen) :], targets[len(chosen) :])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()
    for module, training in modes:
        module.training = training


def _scored(
    weight: float,
    model: nn.Module,
    subject: Subject,
    validation: LabelledImages,
    tiles: Mapping[str, LabelledImages],
    device: torch.device | str,
) -> Trial:
    classifier = subject.classifier(device, model)
    return Trial(
        weight,
        measured(classifier.predict(validation.pixels), validation.labels),
        {name: measured(classifier.predict(part.pixels), part.labels) for name, part in tiles.items()},
        model,
    )


def _split(subject: Subject, seed: int) -> tuple[LabelledImages, LabelledImages, str]:
    train = subject.train_images
    if subject.validation_images is not None:
        return train, subject.validation_images, "the subject's validation set"
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    kept = max(1, len(train) // 10)
    return train[order[kept:]], train[order[:kept]], "a tenth of the training set, kept from finetuning"


def _labelled_tiles(scenario: Scenario, subject: Subject) -> LabelledImages:
    pixels = torch.from_numpy(scenario.pixels("correction"))
    subject.check_images(pixels, str(scenario.picture("correction")))
    assert scenario.record.label is not None, "an accepted scenario has a label"
    return LabelledImages(pixels, torch.full((len(pixels),), subject.index_of(scenario.record.label)))
