"""What an earlier run said of every image, to compare the present run with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_defuse.errors import DefuseError
from pytest_defuse.files import replace_text


@dataclass(frozen=True)
class Predictions:
    """Predicted class names, one an image, and the hash of those images."""

    images: str
    predicted: Sequence[str]


@dataclass(frozen=True)
class Baseline:
    """A run's predictions.

    Attributes:
        model: sha256 of the model's weights.
        scenarios: by scenario id, of the held-out tiles that were counted.
        test: of the test set, by subject.
    """

    model: str
    scenarios: Mapping[str, Predictions]
    test: Mapping[str, Predictions]

    def accuracy(self, scenario_id: str, images: str, label: str) -> float | None:
        """The baseline's accuracy on a scenario, or None where it had not been seen.

        Raises:
            DefuseError: the baseline is about other images.
        """
        before = self.scenarios.get(scenario_id)
        if before is None:
            return None
        if before.images != images:
            raise DefuseError(
                f"The baseline's images of scenario {scenario_id} are not the store's: save the baseline anew with "
                "--defuse-save-baseline on the commit to compare with."
            )
        return list(before.predicted).count(label) / len(before.predicted)


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline as JSON, whole or not at all."""
    replace_text(path, json.dumps({"format": 1, **asdict(baseline)}, indent=1) + "\n")


def load_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DefuseError: the file cannot be read or is no baseline of format 1.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != 1:
            raise DefuseError(f"{path} has baseline format {data['format']}, this pytest-defuse reads format 1.")
        parts = {
            part: {name: _predictions(**entry) for name, entry in data[part].items()} for part in ("scenarios", "test")
        }
        return Baseline(model=data["model"], **parts)
    except OSError as error:
        raise DefuseError(
            f"The baseline {path} cannot be read ({error.strerror}): make it with --defuse-save-baseline {path}."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefuseError(f"{path} is not a baseline: make it anew with --defuse-save-baseline {path}.") from error


def _predictions(images: Any, predicted: Any) -> Predictions:
    named = isinstance(predicted, list) and all(isinstance(name, str) for name in predicted)
    if not isinstance(images, str) or not named or not predicted:
        raise ValueError("an entry has a hash of images, and a class name for each of them")
    return Predictions(images, predicted)
