"""A difference between two revisions of a store: as a headline, as markdown, as one HTML file, and as JSON values."""

from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from pytest_defuse.report.captions import CaptionedSheet, captioned, inline
from pytest_defuse.report.markdown import change_blocks, escape
from pytest_defuse.scenarios.differences import KINDS, Change, Difference, Side
from pytest_defuse.scenarios.schema import SPLITS, Split

PICTURE_BUDGET = 8_000_000
"""Characters of inline pictures, at most: some 35 sheets of 256 small grey tiles, before and after."""


def headline(difference: Difference) -> str:
    """The difference in one line: ``digits: 2 scenarios added, 1 relabelled``."""
    if not difference.changes:
        return "No scenario changed"
    counts = Counter(change.kinds[0] for change in difference.changes)
    said = [f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]]
    subjects = ", ".join(sorted({change.subject for change in difference.changes}))
    noun = "scenario" if len(difference.changes) == 1 else "scenarios"
    return f"{subjects}: {len(difference.changes)} {noun} changed ({', '.join(said)})"


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


def render_markdown(difference: Difference, pictures: str | None = None) -> str:
    """The difference as GitHub's markdown, for a comment.

    Args:
        pictures: the address of the repository's files, ``{commit}`` standing for a commit, such as
            ``https://github.com/me/models/blob/{commit}``; without it pictures are named, not shown.
    """
    blocks = [f"## {escape(headline(difference))}", *(escape(sentence) for sentence in difference.shared)]
    for change in difference.changes:
        blocks += change_blocks(change.subject, change.id, ", ".join(change.kinds), change.details)
        blocks += _picture_table(difference, change, pictures)
    return "\n\n".join(blocks) + "\n"


def _picture_table(difference: Difference, change: Change, pictures: str | None) -> list[str]:
    shown = _shown(change)
    if not shown:
        return []
    commits = {"before": difference.base, "after": difference.head}
    cells = []
    for when, split, side in shown:
        path = f"{side.path}/{split}.png"
        if pictures is None:
            cells.append(escape(path))
        else:
            address = f"{pictures.replace('{commit}', commits[when])}/{quote(path)}?raw=true"
            cells.append(f"![{escape(f'{split} {when}')}]({address})")
    titles = [_title(change, when, split) for when, split, _ in shown]
    return ["\n".join(f"| {' | '.join(row)} |" for row in (titles, [":---"] * len(shown), cells))]


@dataclass(frozen=True)
class _Picture:
    title: str
    sheet: CaptionedSheet


def render_html(difference: Difference, budget: int = PICTURE_BUDGET) -> str:
    """The difference as one self-contained HTML page: no script, nothing fetched.

    Args:
        budget: characters that inline pictures may take; what does not fit is named at the top.
    """
    environment = Environment(
        loader=PackageLoader("pytest_defuse.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cards: list[tuple[Change, list[_Picture]]] = []
    omitted: list[str] = []
    for change in difference.changes:
        found = []
        for when, split, side in _shown(change):
            assert side.record is not None
            url = inline(side.sheets[split], side.record, split)
            if len(url) > budget:
                omitted.append(f"{change.id} {split} {when}")
                continue
            budget -= len(url)
            name = f"{change.subject}-{change.id}-{split}-{when}"
            predicted = side.machine.tiles(split).predicted if side.machine else None
            drawing = captioned(name, url, side.record, split, predicted)
            found.append(_Picture(_title(change, when, split), drawing))
        cards.append((change, found))
    return environment.get_template("difference.html").render(
        difference=difference, headline=headline(difference), cards=cards, omitted=omitted
    )


def _shown(change: Change) -> list[tuple[str, Split, Side]]:
    """The pictures that a reviewer needs: one side where both show the same, else before and after."""
    found: list[tuple[str, Split, Side]] = []
    for split in SPLITS:
        sides = [("before", change.before), ("after", change.after)]
        readable = [(when, side) for when, side in sides if side is not None and split in side.sheets]
        if len(readable) == 2 and _alike(readable[0][1], readable[1][1], split):
            # What was edited in words alone needs no picture.
            readable = [] if change.kinds == ("edited",) else readable[1:]
        found += [(when, split, side) for when, side in readable]
    return found


def _alike(before: Side, after: Side, split: Split) -> bool:
    """Whether two sides would be drawn alike."""
    if before.record is None or after.record is None:
        return False
    old, new = before.record.sheet(split), after.record.sheet(split)
    return (old.sha256, set(old.excluded)) == (new.sha256, set(new.excluded))


def _title(change: Change, when: str, split: Split) -> str:
    both = sum(other == split for _, other, _ in _shown(change)) == 2
    return f"{split.replace('_', '-')}, {when}" if both else split.replace("_", "-")
