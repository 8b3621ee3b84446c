"""The review page, on which a person labels scenarios. It changes only scenario.yaml files and votes.

Every request reads the store again, so the page shows what git or an editor changed in the meantime.
"""

import contextlib
import getpass
import secrets
import socket
import subprocess
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import uvicorn
from jinja2 import ChoiceLoader, PackageLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pytest_defuse.report.captions import captioned
from pytest_defuse.report.html import environment
from pytest_defuse.review.forms import Form
from pytest_defuse.review.guard import Guard
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.decisions import decide, decide_by_votes, tally_of
from pytest_defuse.scenarios.exchange.ballots import annotator_name
from pytest_defuse.scenarios.lookup import all_scenarios
from pytest_defuse.scenarios.problems import ChangedError, plain_bytes
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.sheets import MAX_PNG_BYTES, sheet_size, tile_corner
from pytest_defuse.scenarios.store import Store

SHEET_WIDTH = 1024
"""Maximum width of a contact sheet on the page, in CSS pixels: what most windows have next to the form. Our choice."""
VOTED_TILES = 10
"""Tiles of a scenario on which each person votes (Defuse paper, section 4.1); tiles are independent draws."""
TEMPLATES = environment(ChoiceLoader([PackageLoader("pytest_defuse.review"), PackageLoader("pytest_defuse.report")]))


def serve(root: Path, *, port: int, browser: bool, annotator: str | None = None) -> None:
    """Show the page on 127.0.0.1 until Ctrl-C.

    Args:
        port: 0 for a free one.
        annotator: name for the votes on single tiles; by default git's user, or the system's.
    """
    token = secrets.token_urlsafe()
    app = create_app(root, token, annotator_name(annotator or _user()))
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise DefuseError(f"Port {port} cannot be used ({error}): choose another with --port.") from error
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}"
    print(f"Review at {address} (works once, in one browser; press Ctrl-C to stop)", flush=True)
    if browser:
        webbrowser.open(address)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        server.run(sockets=[listener])


def create_app(root: Path, token: str, annotator: str = "reviewer") -> Starlette:
    """The page as an ASGI application.

    Args:
        token: opens the page once, as ``/?token=...``; every other request needs the cookie that it is exchanged for.
        annotator: name for the votes on single tiles.
    """
    all_scenarios(root)  # raises if there is no store, or a file is wrong
    review = _Review(root, annotator)
    return Starlette(
        routes=[
            Route("/", review.index),
            Route("/scenarios/{subject}/{id}", review.scenario),
            Route("/scenarios/{subject}/{id}", review.decision, methods=["POST"]),
            Route("/scenarios/{subject}/{id}/correction.png", review.sheet),
            Route("/scenarios/{subject}/{id}/votes", review.next_tile),
            Route("/scenarios/{subject}/{id}/votes", review.vote, methods=["POST"]),
            Mount("/static", StaticFiles(packages=[("pytest_defuse.review", "static")])),
        ],
        # Another site can have its name resolve to 127.0.0.1, but the Host of such a request is that name.
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
            Middleware(Guard, token=token),
        ],
        exception_handlers={DefuseError: review.error},
    )


def address_of(scenario: Scenario) -> str:
    """The path of a scenario's page."""
    return f"/scenarios/{quote(scenario.subject, safe='')}/{scenario.id}"


def shortcuts(classes: Sequence[str]) -> list[str]:
    """A key for each class; no keys for more than ten classes.

    A class that is a digit has its own key; other classes have 1 to 9 and then 0, in the order of the keyboard.
    """
    if len(classes) > 10:
        return []
    digits = "1234567890"
    return list(classes) if set(classes) <= set(digits) else list(digits[: len(classes)])


@dataclass(frozen=True)
class _Review:
    """The handlers, which share the store's folder and the name for votes."""

    root: Path
    annotator: str

    def index(self, request: Request) -> Response:
        scenarios = all_scenarios(self.root)
        decided = _decided(request, scenarios)
        return _page("index.html", scenarios=scenarios, candidates=_candidates(scenarios), decided=decided)

    def scenario(self, request: Request) -> Response:
        return self._scenario_page(request)

    def sheet(self, request: Request) -> Response:
        """The file itself, never one that a symbolic link leads to."""
        *_, scenario = self._find(request)
        return Response(plain_bytes(scenario.sheet_file("correction"), MAX_PNG_BYTES), media_type="image/png")

    async def decision(self, request: Request) -> Response:
        """Write the decision, then show the next candidate; if scenario.yaml has changed, show both decisions."""
        form = await Form.of(request)
        scenarios, at, scenario = self._find(request)
        notes = form.notes(scenario)
        if "by_votes" in form.fields:
            tally = tally_of(scenario)
            if tally.outcome == "undecided":
                raise HTTPException(400, "The votes leave this scenario undecided.")
            label = tally.label if tally.outcome == "scenario" else None
            write = partial(decide_by_votes, scenario, tally)
        else:
            label = form.label(scenario, none="reject")
            write = partial(decide, scenario, label)
        try:
            write(form.seen, notes=notes)
        except ChangedError:
            return self._scenario_page(request, refused=(label, notes))
        candidates = _candidates(scenarios[at + 1 :] + scenarios[:at])
        target = address_of(candidates[0]) if candidates else "/"
        return RedirectResponse(f"{target}?{urlencode({'decided': scenario.full_name})}", status_code=303)

    def next_tile(self, request: Request) -> Response:
        """One tile that the annotator has not voted on, without predictions; after the last one, the scenario."""
        return self._vote_page(request)

    async def vote(self, request: Request) -> Response:
        """Write a vote on one tile, then show the next; none if scenario.yaml has changed."""
        form = await Form.of(request)
        *_, scenario = self._find(request)
        tile = form.tile(_voted_tiles(scenario))
        label = form.label(scenario, none="none")
        try:
            Store.of(scenario).vote(scenario.id, self.annotator, {"correction": {tile: label}}, expected=form.seen)
        except ChangedError:
            return self._vote_page(request, refused=(tile, label))
        return RedirectResponse(f"{address_of(scenario)}/votes", status_code=303)

    def _scenario_page(self, request: Request, refused: tuple[str | None, str] | None = None) -> Response:
        """The page of a scenario.

        Args:
            refused: label and notes of a decision on an older state of scenario.yaml.
        """
        scenarios, at, scenario = self._find(request)
        record, sheet = scenario.record, scenario.record.sheets.correction
        scenario.pixels("correction")  # raises if the sheet is not the one recorded: nobody must label it
        width, _ = sheet_size(sheet.images, record.tile, record.gap)
        address = f"{address_of(scenario)}/correction.png"
        evidence = scenario.machine.evidence
        return _page(
            "scenario.html",
            status=409 if refused else 200,
            scenario=scenario,
            record=record,
            refused=refused,
            sheet=sheet,
            sheet_width=width * max(1, SHEET_WIDTH // width),
            tiles=captioned("tiles", address, record, "correction", scenario.machine.correction.predicted),
            evidence=evidence.in_words(record.proposed_label) if evidence else [],
            counts=scenario.counts("correction"),
            choices=_choices(scenario),
            tally=tally_of(scenario),
            scenarios=scenarios,
            at=at,
            left=len(_candidates(scenarios)),
            decided=_decided(request, scenarios),
        )

    def _vote_page(self, request: Request, refused: tuple[int, str | None] | None = None) -> Response:
        """The page of one tile.

        Args:
            refused: tile and label of a vote on an older state of scenario.yaml.
        """
        *_, scenario = self._find(request)
        record, sheet = scenario.record, scenario.record.sheets.correction
        scenario.pixels("correction")
        tiles = _voted_tiles(scenario)
        votes = [vote.correction for vote in scenario.votes() if vote.annotator == self.annotator]
        done = {tile for vote in votes if vote for tile in vote.by_tile}
        left = [tile for tile in tiles if tile not in done]
        if not left:
            return RedirectResponse(address_of(scenario), status_code=303)
        corner = tile_corner(left[0], sheet.images, record.tile, record.gap)
        return _page(
            "vote.html",
            status=409 if refused else 200,
            scenario=scenario,
            refused=refused,
            annotator=self.annotator,
            tile=left[0],
            window=(*corner, record.tile.width, record.tile.height),
            sheet_size=sheet_size(sheet.images, record.tile, record.gap),
            choices=_choices(scenario),
            position=len(tiles) - len(left) + 1,
            count=len(tiles),
        )

    def error(self, request: Request, error: Exception) -> Response:
        return _page("error.html", status=500, problems=str(error).splitlines())

    def _find(self, request: Request) -> tuple[list[Scenario], int, Scenario]:
        """All scenarios, the position of the one that the path names, and this one."""
        scenarios = all_scenarios(self.root)
        name = f"{request.path_params['subject']}/{request.path_params['id']}"
        names = [scenario.full_name for scenario in scenarios]
        if name not in names:
            raise HTTPException(404, f"There is no scenario {name!r}.")
        at = names.index(name)
        return scenarios, at, scenarios[at]


def _page(template: str, status: int = 200, **values: Any) -> Response:
    text = TEMPLATES.get_template(template).render(address_of=address_of, **values)
    return HTMLResponse(text, status)


def _voted_tiles(scenario: Scenario) -> list[int]:
    return scenario.record.sheets.correction.kept[:VOTED_TILES]


def _choices(scenario: Scenario) -> list[tuple[str, str | None]]:
    """Each class with its key, if it has one."""
    return list(zip_longest(scenario.classes, shortcuts(scenario.classes)))


def _user() -> str:
    """The user of this machine: git's email, or the system's name."""
    try:
        email = subprocess.run(["git", "config", "user.email"], capture_output=True, text=True, check=False).stdout
    except OSError:
        email = ""
    return email.strip() or getpass.getuser()


def _candidates(scenarios: Sequence[Scenario]) -> list[Scenario]:
    return [scenario for scenario in scenarios if scenario.record.status == "candidate"]


def _decided(request: Request, scenarios: Sequence[Scenario]) -> Scenario | None:
    """The scenario that was just decided on, if any: the page names it, with a link to change the decision."""
    name = request.query_params.get("decided")
    return next((scenario for scenario in scenarios if scenario.full_name == name), None)
