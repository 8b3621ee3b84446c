"""The difference between two revisions of a store: as a headline, as markdown, as one HTML file, and as JSON."""

from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pytest_defuse.report.captions import CaptionedSheet, captioned, inline
from pytest_defuse.report.html import render_page
from pytest_defuse.report.markdown import change_blocks, escape
from pytest_defuse.report.words import counted
from pytest_defuse.scenarios.differences import KINDS, Change, Difference, Side
from pytest_defuse.scenarios.schema import SPLITS, Split

IMAGE_BUDGET = 8_000_000
"""Maximum number of characters of inline sheets: about 35 of 256 tiles of 28 x 28 grey pixels. Our choice."""


def headline(difference: Difference) -> str:
    """The difference in one line: ``digits: 2 scenarios changed (1 added, 1 relabelled)``."""
    if not difference.changes:
        return "No scenario changed"
    counts = Counter(change.kinds[0] for change in difference.changes)
    tally = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    subjects = ", ".join(sorted({change.subject for change in difference.changes}))
    return f"{subjects}: {counted(len(difference.changes), 'scenario')} changed ({tally})"


def render_json(difference: Difference) -> dict[str, Any]:
    """The difference as JSON values."""
    return {
        "base": difference.base,
        "head": difference.head,
        "changed": bool(difference),
        "shared": list(difference.shared),
        "changes": [
            {
                "subject": change.subject,
                "id": change.id,
                "kinds": list(change.kinds),
                "details": list(change.details),
                "before": _state(change.before),
                "after": _state(change.after),
            }
            for change in difference.changes
        ],
        "problems": [str(problem) for problem in difference.problems],
    }


def _state(side: Side | None) -> dict[str, Any] | None:
    if side is None or side.record is None:
        return None
    return {"folder": str(side.path), "status": side.record.status, "label": side.record.label}


def render_markdown(difference: Difference, files_url: str | None = None) -> str:
    """The difference as GitHub's markdown, for a comment.

    Args:
        files_url: the URL of the repository's files, with ``{commit}`` in place of a commit, such as
            ``https://github.com/me/models/blob/{commit}``; without it sheets are named, not shown.
    """
    blocks = [f"## {escape(headline(difference))}", *(escape(sentence) for sentence in difference.shared)]
    commits = {"before": difference.base, "after": difference.head}
    for change in difference.changes:
        blocks += change_blocks(change.subject, change.id, ", ".join(change.kinds), change.details)
        sheets = _sheets(change)
        cells = []
        for sheet in sheets:
            path = f"{sheet.side.path}/{sheet.split}.png"
            if files_url is None:
                cells.append(escape(path))
            else:
                address = f"{files_url.replace('{commit}', commits[sheet.when])}/{quote(path)}?raw=true"
                cells.append(f"![{escape(f'{sheet.split} {sheet.when}')}]({address})")
        if sheets:
            rows = ([sheet.title for sheet in sheets], [":---"] * len(sheets), cells)
            blocks.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(blocks) + "\n"


def render_html(difference: Difference, budget: int = IMAGE_BUDGET) -> str:
    """The difference as one self-contained HTML page, without scripts and external resources.

    Args:
        budget: maximum number of characters of inline sheets; the page names those that exceed it.
    """
    cards: list[tuple[Change, list[tuple[str, CaptionedSheet]]]] = []
    omitted: list[str] = []
    for change in difference.changes:
        drawn = []
        for sheet in _sheets(change):
            side, split = sheet.side, sheet.split
            assert side.record is not None
            url = inline(side.sheets[split], side.record.tile)
            if len(url) > budget:
                omitted.append(f"{change.id} {split} {sheet.when}")
                continue
            budget -= len(url)
            name = f"{change.subject}-{change.id}-{split}-{sheet.when}"
            predicted = side.machine.tiles(split).predicted if side.machine else None
            drawn.append((sheet.title, captioned(name, url, side.record, split, predicted)))
        cards.append((change, drawn))
    title = headline(difference)
    return render_page("difference.html", difference=difference, headline=title, cards=cards, omitted=omitted)


@dataclass(frozen=True)
class _Sheet:
    """A sheet that a reviewer needs; ``when`` is ``before`` or ``after``."""

    title: str
    when: str
    split: Split
    side: Side


def _sheets(change: Change) -> list[_Sheet]:
    """Of each split the sheet of one side if both are equal, else before and after."""
    sheets = []
    for split in SPLITS:
        sides = [("before", change.before), ("after", change.after)]
        readable = [(when, side) for when, side in sides if side is not None and split in side.sheets]
        if len(readable) == 2 and _equal(readable[0][1], readable[1][1], split):
            # An edit that changes only the text needs no sheet.
            readable = [] if change.kinds == ("edited",) else readable[1:]
        for when, side in readable:
            title = split.replace("_", "-") + (f", {when}" if len(readable) == 2 else "")
            sheets.append(_Sheet(title, when, split, side))
    return sheets


def _equal(before: Side, after: Side, split: Split) -> bool:
    """Whether the sheets of two sides look the same."""
    if before.record is None or after.record is None:
        return False
    old, new = before.record.sheet(split), after.record.sheet(split)
    return (old.sha256, set(old.excluded)) == (new.sha256, set(new.excluded))
