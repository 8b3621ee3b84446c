"""docs/settings.md is what its generator writes today, and says something of every setting."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    reference = runpy.run_path(str(DOCS / "reference.py"))
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == reference["page"](), "run make reference"


def test_every_setting_has_a_description_a_range_and_an_origin() -> None:
    reference = runpy.run_path(str(DOCS / "reference.py"))
    for kind in reference["CLASSES"]:
        for name in kind.model_fields:
            cells = reference["row"](kind, name)
            assert all(cells), cells
            assert "|" not in "".join(cells), "a cell of a table"
            assert cells[3].endswith("."), cells
