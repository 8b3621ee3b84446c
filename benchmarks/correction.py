"""What correction fixes and what it costs, on real images.

    python benchmarks/discovery.py [mnist|fashion|gtsrb]
    python benchmarks/correction.py [mnist|fashion|gtsrb] [--grid] [--cache .benchmarks]

Corrects the model on every scenario in the store of benchmarks/discovery.py that is not rejected, with its label or
else the proposed one. Prints one table: the model before, only more training (lambda = 0), finetuning on single
adversarial images only (the papers' baseline), the default search, and with --grid the papers' grid of 17 lambdas.
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from subjects import COLLECTIONS, subject_of
from torch import Tensor, nn

from pytest_defuse.correct.correction import Correction, correct
from pytest_defuse.correct.data import correction_data
from pytest_defuse.correct.finetune import Finetuning
from pytest_defuse.correct.harm import PairedPredictions, violations
from pytest_defuse.correct.judgement import problems_of
from pytest_defuse.correct.search import Search
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.correct.shifts import shifted_copies
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject

CONTROL = "lambda = 0, only more training"
PAPER = {
    "mnist": ("before - / 98.3 / 29.1", "adversarial only - / 99.1 / 58.3", "Defuse - / 99.1 / 96.4"),
    "gtsrb": ("before 98.8 / 98.7 / 27.8", "Defuse 98.1 / 97.7 / 85.6"),
    "fashion": (),
}


def main() -> None:
    """Run one collection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="mnist", choices=COLLECTIONS)
    parser.add_argument("--grid", action="store_true", help="also the papers' grid (17 lambdas, 3 epochs each)")
    parser.add_argument("--no-adversarial", action="store_true", help="skip the papers' baseline")
    parser.add_argument("--cache", type=Path, default=Path(".benchmarks"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        case = load_case(arguments.collection, arguments.cache)
    except FileNotFoundError as error:
        sys.exit(f"skipped: {error}")
    print(f"{len(case.scenarios)} scenarios: {', '.join(s.id for s in case.scenarios)}", flush=True)
    min_accuracies = {scenario.id: 0.9 for scenario in case.scenarios}

    def corrected(settings: CorrectionSettings) -> Correction:
        start = time.monotonic()
        correction = correct(
            case.subject, case.scenarios, min_accuracies, settings, seed=arguments.seed, cache=arguments.cache / "work"
        )
        chosen = correction.chosen
        print(
            f"{settings.search}: lambda {chosen.lambda_:g}, learning rate {chosen.learning_rate:g}, "
            f"epoch {chosen.epochs}, alpha {chosen.alpha:g}; {correction.image_passes:,} images forward and backward, "
            f"{correction.forward_passes:,} forward only, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        return correction

    default = corrected(CorrectionSettings())
    sets = evaluation_sets(case)
    rows: dict[str, Row] = {}

    def add(name: str, model: nn.Module) -> None:
        rows[name] = score(case, model, sets)
        print(f"{name}: test {rows[name].percent['test set']:.2f}", flush=True)

    add("before", case.subject.model)
    add(CONTROL, default.control_model)
    add("default search", default.model)
    if not arguments.no_adversarial:
        add("finetuned on adversarial images only", adversarial(case, arguments.seed))
    if arguments.grid:
        grid = corrected(CorrectionSettings(search="grid"))
        add("the papers' grid of 17 lambdas", grid.model)
        print(
            f"default search / grid: {default.image_passes / grid.image_passes:.3f} of the images forward and backward"
        )
    table(case, rows)
    for line in PAPER[arguments.collection]:
        print(f"the papers (validation / test / held-out scenarios, other model and scenarios): {line}")


@dataclass(frozen=True, eq=False)
class Case:
    """A subject, its accepted scenarios, and single adversarial images."""

    subject: Subject
    scenarios: list[Scenario]
    adversarial: LabelledImages


def load_case(collection: str, cache: Path) -> Case:
    """The scenarios and adversarial images that benchmarks/discovery.py left in the cache.

    Raises:
        FileNotFoundError: the real images or the scenarios are missing.
    """
    folder = cache / f"{collection}-default"
    scenarios = [accepted(s) for s in Store(folder).scenarios() if s.record.status != "rejected"]
    if not scenarios:
        raise FileNotFoundError(f"no scenarios in {folder}: run benchmarks/discovery.py {collection}.")
    adversarial = load_file(folder.with_suffix(".safetensors"))
    images = LabelledImages(adversarial["pixels"], adversarial["labels"])
    return Case(subject_of(collection, cache), scenarios, images)


def accepted(scenario: Scenario) -> Scenario:
    """The scenario, accepted with its label or else the proposed one."""
    record = scenario.record
    label = record.label or record.proposed_label
    return replace(scenario, record=record.model_copy(update={"status": "accepted", "label": label}))


@dataclass(frozen=True, eq=False)
class Row:
    """Predictions of one model on every set, and its accuracies in percent by column."""

    predictions: dict[str, Tensor]
    percent: dict[str, float]


def adversarial(case: Case, seed: int) -> nn.Module:
    """The model finetuned on single adversarial images instead of scenarios, chosen by the same search."""
    settings = CorrectionSettings()
    # A temporary folder, so that states from another version are not resumed.
    with seeded(seed), TemporaryDirectory() as folder:
        parts = replace(
            correction_data(case.subject, case.scenarios, settings), tiles={"adversarial": case.adversarial}
        )
        finetuning = Finetuning(case.subject, parts, settings, seed=seed, device="cpu", folder=Path(folder))
        search = Search(finetuning, {})
        return search.model(search.run(Progress()))


def evaluation_sets(case: Case) -> dict[str, LabelledImages]:
    """Images that no search has seen: the test set, shifted copies, shift sets, and held-out tiles by scenario."""
    subject = case.subject
    sets = {"test set": subject.test_images, **shifted_copies(subject.test_images)}
    sets |= {name: subject.shift_images(name) for name in subject.shifts}
    for scenario in case.scenarios:
        pixels = torch.from_numpy(scenario.pixels("held_out"))
        labels = torch.full((len(pixels),), subject.index_of(str(scenario.record.label)))
        sets[scenario.id] = LabelledImages(pixels, labels)
    return sets


def score(case: Case, model: nn.Module, sets: dict[str, LabelledImages]) -> Row:
    """The predictions and accuracies of one model on all sets."""
    classifier = case.subject.classifier(model=model)
    predictions = {name: classifier.predict(images.pixels) for name, images in sets.items()}
    accuracies = {name: 100 * (predictions[name] == sets[name].labels).double().mean().item() for name in sets}
    held_out = [accuracies.pop(scenario.id) for scenario in case.scenarios]
    return Row(
        predictions, {**accuracies, "held out, mean": sum(held_out) / len(held_out), "held out, worst": min(held_out)}
    )


def table(case: Case, rows: dict[str, Row]) -> None:
    """Print the accuracy of every model on all sets, in percent, and its difference from the control."""
    control = rows[CONTROL].percent
    print(f"{'accuracy, % (minus the control)':38}" + "".join(f"{name:>17}" for name in control))
    for name, row in rows.items():
        cells = [f"{value:.2f} ({value - control[column]:+.2f})" for column, value in row.percent.items()]
        print(f"{name:38}" + "".join(f"{cell:>17}" for cell in cells))
    default = rows["default search"]
    others = [column for column in control if not column.startswith(("held out", "test set"))]
    worst = min(others, key=lambda column: default.percent[column] - control[column])
    difference = default.percent[worst] - control[worst]
    print(f"default search, worst shift compared with the control: {worst}, {difference:+.2f} points")
    sets, before = evaluation_sets(case), rows["before"].predictions
    compared = {
        name: PairedPredictions(sets[name].labels, before[name], default.predictions[name])
        for name in ("test set", *others)
    }
    test = compared.pop("test set")
    problems = violations(test, compared, CorrectionSettings(), case.subject.classes, "test set")
    print(f"default search, violated bounds on harm: {'; '.join(problems_of(problems)) or 'none'}")
    print(f"test images lost {len(test.negative_flips)}, gained {len(test.positive_flips)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
