"""Stores that old versions wrote."""

from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "fixtures" / "formats"
DEFUSE, BARLOW = "2-as-3-00e2ac", "8-as-3-b04682"
"""The scenarios of the format 1 sample."""

every_format = pytest.mark.parametrize("old_store", ["0", "1"], indirect=True)
format_0 = pytest.mark.parametrize("old_store", ["0"], indirect=True)
format_1 = pytest.mark.parametrize("old_store", ["1"], indirect=True)
