"""What correction mends and what it costs, on real images.

    python benchmarks/correction.py [mnist|fashion|gtsrb] [--grid]

Prints one table: the model before, more training alone (lambda = 0), finetuning on single adversarial images only
(the papers' baseline), the default search, and with --grid the papers' grid of seventeen lambdas. Real images come
from DEFUSE_DATA (default ../shared/data); classifier, generator and scenarios are made once and kept in --cache.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from correction_cases import Case, case
from torch import nn

from pytest_defuse.classifier import Classifier
from pytest_defuse.correct.audit import Audit, audit
from pytest_defuse.correct.correction import Correction, correct
from pytest_defuse.correct.material import material
from pytest_defuse.correct.search import Search
from pytest_defuse.correct.settings import CorrectionSettings, papers_settings
from pytest_defuse.determinism import seeded
from pytest_defuse.images import LabelledImages
from pytest_defuse.progress import Progress

PAPER = {
    "mnist": ("before - / 98.3 / 29.1", "adversarial only - / 99.1 / 58.3", "Defuse - / 99.1 / 96.4"),
    "gtsrb": ("before 98.8 / 98.7 / 27.8", "Defuse 98.1 / 97.7 / 85.6"),
    "fashion": (),
}


def main() -> None:
    """Run one collection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", nargs="?", default="mnist", choices=sorted(PAPER))
    parser.add_argument("--grid", action="store_true", help="also the papers' grid (17 lambdas, 3 epochs each)")
    parser.add_argument("--no-adversarial", action="store_true", help="leave the papers' baseline out")
    parser.add_argument("--cache", type=Path, default=Path(".defuse_cache") / "benchmarks")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        made = case(arguments.collection, arguments.cache)
    except FileNotFoundError as error:
        sys.exit(f"skipped: {error}")
    print(f"{len(made.scenarios)} scenarios: {', '.join(s.id for s in made.scenarios)}", flush=True)
    least = {scenario.id: 0.9 for scenario in made.scenarios}

    def corrected(settings: CorrectionSettings) -> Correction:
        started = time.monotonic()
        correction = correct(
            made.subject, made.scenarios, least, settings, seed=arguments.seed, cache=arguments.cache / "work"
        )
        chosen = correction.chosen
        print(
            f"{settings.search}: lambda {chosen.weight:g}, rate {chosen.rate:g}, epoch {chosen.epochs}, alpha "
            f"{chosen.alpha:g}; {correction.images:,} images forward and backward, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        return correction

    default = corrected(CorrectionSettings())
    rows = [("before", made.subject.model), ("lambda = 0, more training alone", default.control_model)]
    if not arguments.no_adversarial:
        rows.append(("finetuned on adversarial images only", adversarial(made, arguments.seed)))
    if arguments.grid:
        grid = corrected(papers_settings())
        rows.append(("the papers' grid of 17 lambdas", grid.model))
        print(f"default search / grid: {default.images / grid.images:.3f} of the images forward and backward")
    rows.append(("default search", default.model))
    table(made, default, rows)
    for line in PAPER[arguments.collection]:
        print(f"the papers (validation / test / held-out scenarios, other model and scenarios): {line}")


def adversarial(made: Case, seed: int) -> nn.Module:
    """The model finetuned on single adversarial images in place of scenarios, searched for in the same way."""
    settings = CorrectionSettings()
    images = LabelledImages(made.adversarial_pixels, made.adversarial_labels)
    with seeded(seed), TemporaryDirectory() as folder:
        parts = replace(material(made.subject, made.scenarios, settings, seed), tiles={"adversarial": images})
        search = Search(made.subject, parts, settings, {}, seed=seed, device="cpu", folder=Path(folder))
        return search.model(search.run(Progress()))


def table(made: Case, default: Correction, rows: Sequence[tuple[str, nn.Module]]) -> None:
    """Accuracy of every model on everything, in percent, and what it is above the control."""
    control = made.subject.classifier(model=default.control_model)
    audits = [audit_of(made, model, control, default.settings) for _, model in rows]
    names = ["test set", "held out, mean", "held out, worst"]
    names += [score.name for score in audits[0].scores if score.kind.startswith("shift")]
    print(f"{'accuracy, %':40}" + "".join(f"{name:>17}" for name in names))
    base = figures(audits[1])
    for (name, _), audited in zip(rows, audits, strict=True):
        own = figures(audited)
        print(f"{name:40}" + "".join(f"{own[key]:9.2f} ({own[key] - base[key]:+6.2f})"[:17].rjust(17) for key in names))
    worst = min((s.after - s.control) / s.total for s in audits[-1].scores if s.kind.startswith("shift"))
    print(f"default search, worst shift set against the control: {100 * worst:+.2f} points")
    print(f"default search, bounds on harm that do not hold: {list(audits[-1].problems) or 'none'}")


def audit_of(made: Case, model: nn.Module, control: Classifier, settings: CorrectionSettings) -> Audit:
    """One model's accuracies."""
    subject = made.subject
    before, after = subject.classifier(), subject.classifier(model=model)
    return audit(subject, made.scenarios, before, control, after, settings)


def figures(audited: Audit) -> dict[str, float]:
    """Percent by column."""
    shares = {score.name: 100 * score.after / score.total for score in audited.scores}
    held_out = [shares[score.name] for score in audited.scores if score.kind == "scenario"]
    return {**shares, "held out, mean": sum(held_out) / len(held_out), "held out, worst": min(held_out)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
