"""What the forms of the review page send."""

from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from pytest_defuse.runtime.escaping import visible
from pytest_defuse.scenarios.scenario import Scenario

MAX_BYTES = 2**20
"""Maximum size of a form, 1 MiB: notes of some 200 pages. Our choice."""
MAX_FIELDS = 8
"""Maximum number of fields of a form; the page sends at most four."""


@dataclass(frozen=True)
class Form:
    """The fields of a form, by name."""

    fields: dict[str, str]

    @staticmethod
    async def of(request: Request) -> "Form":
        """The form in a request; forms of other pages are refused."""
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers['host']}":
            raise HTTPException(403, "This form was sent by another page.")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                raise HTTPException(413, f"This form has more than {MAX_BYTES:,} bytes: shorten the notes.")
        try:
            fields = parse_qs(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError as error:
            raise HTTPException(400, f"This is no form of this page ({error}).") from error
        return Form({name: first for name, (first, *_) in fields.items()})

    @property
    def seen(self) -> str:
        """The sha256 of the scenario.yaml that the page of this form showed."""
        return self.fields.get("seen", "")

    def notes(self, scenario: Scenario) -> str:
        """The notes; unchanged ones exactly as they are stored, since the page shows some characters as escapes."""
        before = scenario.record.notes
        notes = self.fields.get("notes", before).replace("\r\n", "\n").strip()
        return before if notes == visible(before, lines=True).strip() else notes

    def label(self, scenario: Scenario, *, none: str) -> str | None:
        """The class that was chosen; None if the button ``none`` was pressed."""
        if none in self.fields:
            return None
        label, names = self.fields.get("label", ""), {visible(name, lines=True): name for name in scenario.classes}
        if label not in names:
            raise HTTPException(400, f"{label!r} is not a class of this scenario.")
        return names[label]

    def tile(self, tiles: list[int]) -> int:
        """The tile that was voted on, one of ``tiles``."""
        tile = self.fields.get("tile", "")
        if not tile.isdecimal() or int(tile) not in tiles:
            raise HTTPException(400, f"{tile!r} is not a tile to vote on.")
        return int(tile)
