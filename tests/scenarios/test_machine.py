import hashlib
import json

import pytest

from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.machine import MachineRecord, counts, json_hash, parse_machine
from pytest_defuse.scenarios.schema import SheetRecord
from pytest_defuse.scenarios.store import Store
from pytest_defuse.scenarios.verify import verify
from tests.scenarios.planting import machine_of, plant, random_tiles

REGION = {
    "generator": "c" * 64,
    "weight": 1 / 3,
    "tau": 0.5,
    "mean": [0.5, -1],
    "covariance": [[2, 1 / 3], [1 / 3, 3]],
}
LABELS = {split: {"labels": ["3", "5", "3", "8"]} for split in ("correction", "held_out")}


def read(text: str, sha256: str | None = None) -> MachineRecord:
    return parse_machine(text.encode(), "machine.json", sha256 or json_hash(json.loads(text)))


def test_a_record_is_read_as_it_was_written() -> None:
    record = machine_of(correction={"predicted": ["3", "é"], "sources": ["d" * 64] * 2}, region=REGION)
    again = read(record.text, record.sha256)
    assert again == record
    assert (again.text, again.sha256) == (record.text, record.sha256)


def test_a_rounded_record_has_nine_digits() -> None:
    record = machine_of(correction={"predicted": ["3", "é"]}, region=REGION | {"tau": 1e-7 / 3}).rounded()
    assert record.correction.predicted == ("3", "é")
    assert record.region is not None
    assert (record.region.weight, record.region.tau, record.region.mean) == (0.333333333, 3.33333333e-08, (0.5, -1))
    assert record.region.covariance == ((2.0, 0.333333333), (0.333333333, 3.0))
    assert record.rounded() == record


def test_the_hash_is_of_the_content_in_canonical_form() -> None:
    canonical = '{"a":[1.5,null],"b":"\\u00e9"}'
    assert json_hash({"b": "é", "a": [1.5, None]}) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "layout",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: json.dumps(json.loads(text), indent=4),
        lambda text: json.dumps(dict(reversed(json.loads(text).items()))),
        lambda text: "\ufeff" + text,
    ],
    ids=["Windows line ends", "indented", "another order", "byte order mark"],
)
def test_layout_does_not_matter(layout) -> None:
    record = machine_of(region=REGION)
    assert read(layout(record.text), record.sha256) == read(record.text)


def test_another_number_does() -> None:
    record = machine_of(region=REGION)
    with pytest.raises(DefuseError, match=r"^machine\.json does not match the hash in scenario\.yaml"):
        read(record.text.replace("0.5", "0.6"), record.sha256)


@pytest.mark.parametrize("text", ["", "{", "nothing", '{"format": 2}}', "1" * 5000, "[" * 10**6, "\0"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(DefuseError, match=r"^machine\.json is not valid JSON: restore it from git\.$"):
        read(text, "0" * 64)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"covariance": [[2, 1]]}, "region.covariance: covariance must be 2 x 2, as mean has 2 numbers"),
        ({"covariance": [[2, 1], [0, 3]]}, "region.covariance: covariance is not symmetric: see row 0, column 1"),
        ({"covariance": [[1, 2], [2, 1]]}, "region.covariance: covariance is not positive definite"),
        ({"mean": [float("nan"), 0]}, "region.mean.0: must be a finite number"),
        ({"tau": 0}, "region.tau: must be > 0"),
        ({"kind": "cube"}, "region.kind: must be 'latent'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(DefuseError) as caught:
        read(json.dumps({"format": 2, "region": REGION | changes}))
    assert str(caught.value).startswith(f"machine.json {problem}")


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(DefuseError, match=r"^machine\.json has format 3, but this pytest-defuse reads formats up to 2"):
        read('{"format": 3, "new": 1}', "0" * 64)


def test_excluded_tiles_do_not_count() -> None:
    sheet = SheetRecord(images=4, sha256="0" * 64, predicted={"5": 3, "3": 1}, excluded=(0, 1))
    assert counts(sheet, machine_of(correction={"predicted": ["5", "5", "5", "3"]}).correction) == {"5": 1, "3": 1}
    assert counts(sheet, machine_of().correction) == {"5": 3, "3": 1}


def test_a_label_for_each_image_is_accepted_by_the_status_alone(tmp_path) -> None:
    machine = machine_of(**LABELS)
    scenario = plant(
        Store(tmp_path / "digits"), random_tiles(), random_tiles(seed=1), machine=machine, labels="per image"
    )
    text = scenario.yaml.read_text()
    assert '\nlabel: null\nlabels: "per image"\n' in text
    scenario.yaml.write_text(
        text.replace('status: "candidate"', "status: accepted").replace("excluded: []", "excluded: [1]")
    )
    (accepted,) = Store.of(scenario).scenarios("accepted")
    assert accepted.labels("correction") == ["3", "3", "8"]
    assert verify([Store.of(scenario)]) == []


def test_people_can_report_images_without_a_model(tmp_path) -> None:
    tiles, other = random_tiles(), random_tiles(seed=1)
    scenario = plant(Store(tmp_path / "digits"), tiles, other)
    sheets = scenario.record.sheets.model_dump()
    for sheet in sheets.values():
        sheet["predicted"] = None
    store = Store(tmp_path / "reports")
    reported = plant(
        store,
        tiles,
        other,
        method="reported",
        sheets=sheets,
        failure_rate=None,
        proposed_label=None,
        provenance={"versions": {}},
        status="accepted",
        label="3",
    )
    text = reported.yaml.read_text()
    for key in ("failure_rate", "proposed_label", "predicted"):
        assert key not in text
    assert store.get(reported.id) == reported
    assert (reported.counts("held_out"), reported.labels("held_out")) == ({}, ["3"] * 4)
    assert verify([store]) == []
