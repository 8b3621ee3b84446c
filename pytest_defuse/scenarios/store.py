"""The scenario store: one folder a scenario, below one folder a subject."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from pytest_defuse.errors import DefuseError
from pytest_defuse.scenarios.schema import (
    ScenarioRecord,
    Split,
    Status,
    StoreRecord,
    read_record,
    write_record,
)
from pytest_defuse.scenarios.sheets import Pixels, encode_sheet, read_sheet


@dataclass(frozen=True)
class Scenario:
    """A scenario on disk: its folder, and what its scenario.yaml holds."""

    folder: Path
    record: ScenarioRecord

    @property
    def id(self) -> str:
        """The scenario's id, which is its folder's name."""
        return self.record.id

    @property
    def subject(self) -> str:
        """The name of the subject that the scenario belongs to."""
        return self.folder.parent.name

    @property
    def store(self) -> "Store":
        """The store that holds the scenario."""
        return Store(self.folder.parent)

    @property
    def yaml(self) -> Path:
        """The file that a reviewer edits."""
        return self.folder / "scenario.yaml"

    def picture(self, split: Split) -> Path:
        """The PNG of a split."""
        return self.folder / f"{split}.png"

    def pixels(self, split: Split) -> Pixels:
        """The tiles of a split without excluded ones, uint8 N x C x H x W.

        Raises:
            DefuseError: the picture is missing, damaged or not the one recorded.
        """
        sheet = getattr(self.record.sheets, split)
        pixels = read_sheet(self.picture(split), self.record.tile, sheet.images, sheet.sha256)
        return pixels[[tile for tile in range(sheet.images) if tile not in sheet.excluded]]


@dataclass(frozen=True)
class Store:
    """The scenarios of one subject: the folder ``<store>/<subject's name>``."""

    folder: Path

    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return (self.folder / "store.yaml").exists()

    def record(self) -> StoreRecord:
        """What store.yaml holds.

        Raises:
            DefuseError: it is missing or wrong.
        """
        return read_record(self.folder / "store.yaml", StoreRecord)

    def scenarios(self, *statuses: Status) -> list[Scenario]:
        """All scenarios, or those of these statuses, sorted by id.

        Raises:
            DefuseError: every error of every scenario.yaml, a line each.
        """
        found, problems = [], []
        for path in sorted(self.folder.glob("*/scenario.yaml")):
            try:
                found.append(self._read(path.parent))
            except DefuseError as error:
                problems.append(str(error))
        if problems:
            raise DefuseError("\n".join(dict.fromkeys(problems)))  # a wrong store.yaml is said once
        return [scenario for scenario in found if not statuses or scenario.record.status in statuses]

    def get(self, scenario_id: str) -> Scenario:
        """The scenario with this id.

        Raises:
            DefuseError: there is none.
        """
        if not re.fullmatch(r"[a-z0-9-]+", scenario_id) or not (self.folder / scenario_id).is_dir():
            raise DefuseError(f"There is no scenario {scenario_id!r} in {self.folder}: {_known(self.folder)}.")
        return self._read(self.folder / scenario_id)

    def open_for(self, classes: Sequence[str], record: StoreRecord) -> None:
        """Write store.yaml if there is none; else check that it is about the same classes and tiles.

        Raises:
            DefuseError: the store belongs to other classes or another image size.
        """
        path = self.folder / "store.yaml"
        with self._lock():
            if self.exists():
                present = self.record()
                if list(present.classes) != list(classes) or present.tile != record.tile:
                    raise DefuseError(
                        f"{path} is for classes {', '.join(present.classes)} and tiles of {present.tile.width} x "
                        f"{present.tile.height} {present.tile.mode}, the subject has others: give the subject "
                        "another name, or move the old store away."
                    )
                record = record.model_copy(update={"feature_names": present.feature_names})
            if not self.exists() or self.record().generator != record.generator:
                write_record(path, record)

    def feature_names(self) -> dict[str, dict[int, str]]:
        """What people call features: by the key of their network and layer, then by number."""
        given = self.record().feature_names
        return {key: {int(number): name for number, name in names.items()} for key, names in given.items()}

    def name_feature(self, key: str, feature: int, name: str) -> None:
        """Keep what people call a feature of the network and layer with this key; no name forgets it.

        Raises:
            DefuseError: there is no store yet, or the key or name cannot be used.
        """
        with self._lock():
            record = self.record()
            names = {known: dict(given) for known, given in record.feature_names.items()}
            names.setdefault(key, {}).pop(str(feature), None)
            if name:
                names[key][str(feature)] = name
            try:
                named = StoreRecord.model_validate(record.model_dump() | {"feature_names": names})
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise DefuseError(f"Feature {feature} of {key!r} named {name!r}: {problem}.") from error
            write_record(self.folder / "store.yaml", named)

    def add(self, record: ScenarioRecord, correction: Pixels, held_out: Pixels) -> Scenario:
        """Write a new scenario, its folder appearing whole; one that is there already is left as it is."""
        folder = self.folder / record.id
        with self._lock():
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as temporary:
                    new = Path(temporary) / record.id
                    new.mkdir()
                    (new / "correction.png").write_bytes(encode_sheet(correction))
                    (new / "held_out.png").write_bytes(encode_sheet(held_out))
                    write_record(new / "scenario.yaml", record)
                    new.rename(folder)
            return self._read(folder)

    def update(self, scenario_id: str, **changes: Any) -> Scenario:
        """Change keys of a scenario.yaml, checked like a file that is read.

        Raises:
            DefuseError: no such scenario, or the changed record would not be valid; nothing was written then.
        """
        with self._lock():
            scenario = self.get(scenario_id)
            try:
                record = ScenarioRecord.model_validate(scenario.record.model_dump() | changes)
            except ValidationError as error:
                raise DefuseError(f"Scenario {scenario_id}: {error.errors()[0]['msg']}.") from error
            self._check(scenario.yaml, record)
            write_record(scenario.yaml, record)
            return Scenario(scenario.folder, record)

    def _read(self, folder: Path) -> Scenario:
        path = folder / "scenario.yaml"
        record = read_record(path, ScenarioRecord)
        self._check(path, record)
        return Scenario(folder, record)

    def _check(self, path: Path, record: ScenarioRecord) -> None:
        """Hold a scenario.yaml against its folder and store.yaml."""
        if record.id != path.parent.name:
            raise DefuseError(
                f"{path}: id is {record.id!r}, but its folder is {path.parent.name!r}: give both the same name."
            )
        shared = self.record()
        if record.tile != shared.tile:
            raise DefuseError(f"{path}: tile differs from that of {self.folder / 'store.yaml'}: restore both from git.")
        for key, name in (("label", record.label), ("proposed_label", record.proposed_label)):
            if name is not None and name not in shared.classes:
                raise DefuseError(f"{path}: {key} {name!r} is not one of the classes {', '.join(shared.classes)}.")

    def _lock(self) -> FileLock:
        """One writer at a time; the lock lies outside the repository."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        return FileLock(Path(tempfile.gettempdir()) / f"pytest-defuse-{name}.lock")


def stores(root: Path) -> list[Store]:
    """The stores of all subjects below a folder, by name."""
    return [Store(path.parent) for path in sorted(root.glob("*/store.yaml"))]


def accepted_scenarios(root: Path, only: Sequence[str] = ()) -> list[Scenario]:
    """The accepted scenarios of all subjects below a folder, sorted by subject and id.

    Args:
        only: ids or labels to choose; all where it is empty.

    Raises:
        DefuseError: a file that is wrong, or a name in ``only`` that is neither id nor label of an accepted one.
    """
    found = [scenario for store in stores(root) for scenario in store.scenarios("accepted")]
    names = {name for scenario in found for name in (scenario.id, scenario.record.label)}
    if unknown := [name for name in only if name not in names]:
        raise DefuseError(
            f"defuse(only=...) names {unknown[0]!r}, which is neither the id nor the label of an accepted scenario "
            f"in {root}."
        )
    return [s for s in found if not only or s.id in only or s.record.label in only]


def scenario_id(label: str, prediction: str, sha256: str) -> str:
    """A short, readable id that belongs to the content: ``<label>-as-<prediction>-<hash6>``."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{label}-as-{prediction}".lower()).strip("-")
    return f"{slug[:32].strip('-') or 'scenario'}-{sha256[:6]}"


def _known(folder: Path) -> str:
    ids = [path.parent.name for path in sorted(folder.glob("*/scenario.yaml"))]
    return f"it has {', '.join(ids)}" if ids else "it is empty"
