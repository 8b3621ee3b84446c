"""Write docs/settings.md from the settings' classes: ``make reference``."""

from pathlib import Path
from typing import Any

from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.runtime.settings import Settings
from pytest_defuse.scenarios.bounds import Bounds

PAGE = Path(__file__).with_name("settings.md")
CLASSES = (Bounds, DiscoverySettings, CorrectionSettings, ExplainSettings)
HEAD = """# Settings

Written by `make reference` from the declarations in the package: change those, not this page.

A wrong name or value is one sentence that says what is accepted. A bool is not a number, a whole number is also a
number, and a list may be a tuple. A choice such as `mode="paper"` changes other defaults; the table shows both.
"""


def page() -> str:
    """The whole page, in markdown."""
    return "\n".join([HEAD, *map(section, CLASSES)])


def section(kind: type[Settings]) -> str:
    """One marker and its settings."""
    paragraphs = (kind.__doc__ or "").replace("``", "`").split("\n\n")
    rows = [f"| {' | '.join(row(kind, name))} |" for name in kind.model_fields]
    return "\n".join(
        [
            f"## `@pytest.mark.{kind.marker}`",
            "",
            "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs),
            "",
            "| setting | accepts | default | what it does | where the default comes from |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def row(kind: type[Settings], name: str) -> tuple[str, ...]:
    """The cells of one setting."""
    field = kind.model_fields[name]
    presets = [
        f'`{choice}="{value}"`: {shown(defaults[name])}'
        for (choice, value), defaults in kind.presets.items()
        if name in defaults
    ]
    default = "; ".join([shown(field.default), *presets])
    return f"`{name}`", kind.allowed(name), default, field.description or "", kind.origin(name)


def shown(value: Any) -> str:
    """A default as a cell."""
    if value is None or value == ():
        return "none"
    return f"`{list(value) if isinstance(value, tuple) else value!r}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
