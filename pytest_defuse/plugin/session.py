"""What the plugin remembers during one pytest session: the subjects' runs, and results as they arrive."""

import os
import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_defuse.plugin.inifile import sources_of
from pytest_defuse.plugin.options import Options, to_repeat
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.progress import Progress

if TYPE_CHECKING:
    from pytest_defuse.plugin.run import SubjectRun
    from pytest_defuse.report.results import Result
    from pytest_defuse.runtime.sharing import Sharing
    from pytest_defuse.scenarios.bounds import Bounds
    from pytest_defuse.scenarios.store import Scenario
    from pytest_defuse.subject.subject import Subject

SESSION = pytest.StashKey["DefuseSession"]()
RESULTS = pytest.StashKey["list[Result]"]()
SCENARIO = pytest.StashKey["Scenario"]()
MOST_NAMED = 5


class DefuseSession:
    """The plugin object of one session; its hooks are those that need state."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        """Start a session.

        Raises:
            pytest.UsageError: options that cannot be had together.
        """
        self.config = config
        self.options = options
        self.untouched: list[str] = []
        self.asked: list[tuple[Scenario, Bounds]] = []
        self.correction: dict[str, Any] = {}
        self.runs: list[SubjectRun] = []
        self.results: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.problems: list[str] = []
        self.annotations = ""
        self.notices: list[str] = []
        self.shared = shared_folder(worker) if (worker := worker_of(config)) else None
        self.first_run = options.baseline is not None and not options.baseline.exists()
        self._accepted: dict[tuple[str, ...], list[Scenario]] = {}
        workers = config.getoption("numprocesses", None)
        for verb in ("discover", "correct"):
            if getattr(options, verb) and workers:
                raise pytest.UsageError(
                    f"--defuse-{verb} uses the whole machine by itself: run it without xdist workers (-n0)."
                )

    def start(self, subject: "Subject") -> "SubjectRun":
        """Begin the run of a subject; under xdist the workers share out the CPU's cores and the GPUs."""
        from pytest_defuse.plugin.run import SubjectRun
        from pytest_defuse.subject.devices import share_threads

        if self.runs and self.options.correct_output:
            raise DefuseError(
                "--defuse-correct-output names one file, but this session corrects several subjects: run one at a time."
            )
        share_threads(worker_of(self.config).get("workercount", 1))
        run = SubjectRun(subject, self.options, self.asked, self._progress(), self._sharing(), self.correction)
        self.runs.append(run)
        return run

    def record(self, item: pytest.Item, result: "Result") -> None:
        """Attach a result to an item's report, and its figures to JUnit's."""
        from pytest_defuse.report.junit import properties

        item.stash.setdefault(RESULTS, []).append(result)
        item.user_properties += properties(result)

    def accepted(self, only: tuple[str, ...] = ()) -> "list[Scenario]":
        """The accepted scenarios of all subjects, or those that ``only`` names; the store is read once.

        Raises:
            DefuseError: the store cannot be read, or ``only`` names something that is not there.
        """
        from pytest_defuse.scenarios.store import accepted_scenarios

        if only not in self._accepted:
            self._accepted[only] = accepted_scenarios(self.options.store, only)
        return self._accepted[only]

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Remember what is asked of each scenario; add the item that --defuse-discover needs when no test asks for it.

        A test that is deselected touches its scenario all the same, but asks nothing of it.
        """
        scenarios = [scenario for item in items if (scenario := scenario_of(item))]
        if any("defuse_subject" in fixtures_of(item) for item in items) and not session.testsfailed:
            self.untouched = self._without({scenario.folder for scenario in scenarios})
        result = yield
        asked = {
            (scenario.folder, bounds): (scenario, bounds)
            for item in items
            if (scenario := scenario_of(item)) and (bounds := bounds_of(item))
        }
        self.asked = list(asked.values())
        for item in items:
            self._remember_correction(item)
        users = [item for item in items if {"defuse_subject", "defuse_discovery"}.intersection(fixtures_of(item))]
        if self.options.discover and not discovers(users):
            parent = users[0].getparent(pytest.Module) if users else session
            items.append(pytest.Function.from_parent(parent, name="defuse-discover", callobj=_discover))
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what reports carry, also those of xdist workers."""
        self.results += getattr(report, "defuse_results", [])
        if report.failed and getattr(report, "defuse_gate", False):
            self.failed.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Remember where xdist's workers will share what they compute."""
        self.shared = shared_folder(node.workerinput)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Hear from an xdist worker which scenarios no test touches: all workers collect the same."""
        self.untouched = getattr(node, "workeroutput", {}).get("defuse_untouched", [])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what the session was asked to write; what cannot be, and a missed bound, fail the run."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["defuse_untouched"] = self.untouched
            return
        if self.shared:
            shutil.rmtree(self.shared, ignore_errors=True)
        self.notices = self._notices()
        options = self.options
        written = options.results or options.report or options.summary or options.code_quality
        if not (self.results or self.runs or written):
            return
        from pytest_defuse.plugin.finish import finish_correction, write_reports
        from pytest_defuse.report.findings import findings, render_github, repository_root
        from pytest_defuse.report.results import Results, encode

        # What was interrupted has not been judged: its training is kept, and the next run goes on from it.
        runs = [] if session.exitstatus == pytest.ExitCode.INTERRUPTED else self.runs
        corrections = [result for run in runs if (result := finish_correction(run, self.results, self.failed))]
        self.results += map(encode, corrections)
        results = Results.of(self.results, self.failed, self.notices, to_repeat(sources_of(self.config)))
        self.problems = write_reports(options, results)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self.annotations = render_github(findings(results, repository_root()))
        missed = any(result.problems for result in corrections)
        if (self.problems or missed) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the results; under -q only what went wrong."""
        if (self.results or self.notices) and self.config.option.verbose >= 0:
            from pytest_defuse.report.results import Results
            from pytest_defuse.report.terminal import render

            terminalreporter.section("defuse")
            terminalreporter.write(
                render(
                    Results.of(self.results, notices=self.notices, arguments=to_repeat(sources_of(self.config))),
                    width=terminalreporter._tw.fullwidth,
                    color=terminalreporter.hasmarkup,
                    start=self.config.invocation_params.dir,
                    verbose=self.config.option.verbose > 0,
                )
            )

    def pytest_unconfigure(self) -> None:
        """Say what must be said under -q and --no-summary too: what a service reads, and what went wrong."""
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is None:
            return
        reporter.write(self.annotations)
        for problem in self.problems:
            reporter.write_line(problem, red=True)

    def _without(self, touched: set[Path]) -> list[str]:
        """The ids of accepted scenarios that are in none of these folders; a store that cannot be read has none."""
        try:
            return [scenario.id for scenario in self.accepted() if scenario.folder not in touched]
        except DefuseError:
            return []

    def _notices(self) -> list[str]:
        """What a reader should know of the run as a whole."""
        notices = []
        if self.untouched and whole_suite(self.config):
            more = len(self.untouched) - MOST_NAMED
            named = ", ".join(self.untouched[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            notices.append(f"no test touches {named}: let a test use defuse_scenario, without only=, or reject them")
        if self.results and self.first_run:
            file = self.options.baseline
            notices.append(f"there is no baseline yet at {file}: make it with --defuse-save-baseline {file}")
        return notices

    def _sharing(self) -> "Sharing":
        """Under xdist, a folder that all workers share."""
        from pytest_defuse.runtime.sharing import Sharing

        if not self.shared:
            return Sharing()
        self.shared.mkdir(mode=0o700, exist_ok=True)
        number = re.sub(r"\D", "", worker_of(self.config)["workerid"])  # gw0, gw1, ...; a user may name workers
        return Sharing(self.shared, int(number or 0))

    def _remember_correction(self, item: pytest.Item) -> None:
        """A session corrects in one way, whichever of its tests says how."""
        for name, value in marker_values(item, "defuse_correct").items():
            if self.correction.setdefault(name, value) != value:
                raise pytest.UsageError(
                    f"two tests give defuse_correct({name}=...) different values, {self.correction[name]!r} and "
                    f"{value!r}: a session corrects in one way."
                )

    def _progress(self) -> Progress:
        """Who shows how far long work is: nobody under -q."""
        from pytest_defuse.plugin.progress import VisibleProgress

        capture = self.config.pluginmanager.getplugin("capturemanager")
        if self.config.option.verbose < 0 or capture is None:
            return Progress()
        return VisibleProgress(capture.global_and_fixture_disabled)


def worker_of(config: pytest.Config) -> dict[str, Any]:
    """What xdist told this worker; empty in a process that is none."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return given


def shared_folder(workerinput: dict[str, Any]) -> Path:
    """Where the workers of one xdist run share what they compute."""
    return Path(tempfile.gettempdir()) / f"pytest-defuse-{workerinput['testrunuid']}"


def whole_suite(config: pytest.Config) -> bool:
    """Whether all tests of the project were collected, so that what they leave out is left out by all."""
    if config.args_source == pytest.Config.ArgsSource.ARGS or config.getoption("lf", False):
        return False
    at_root = (
        config.args_source == pytest.Config.ArgsSource.TESTPATHS or config.invocation_params.dir == config.rootpath
    )
    return at_root and not config.option.ignore and not config.option.ignore_glob


def discovers(items: list[pytest.Item]) -> bool:
    """Whether tests of a subject are a discovery themselves: one asks for it, or all ask for failure modes alone."""
    fixtures = [fixtures_of(item) for item in items]
    if any("defuse_discovery" in names for names in fixtures):
        return True
    return bool(fixtures) and all("defuse_failure_modes" in names for names in fixtures)


def fixtures_of(item: pytest.Item) -> list[str]:
    """All fixtures that an item uses, also through others."""
    return list(getattr(item, "fixturenames", []))


def scenario_of(item: pytest.Item) -> "Scenario | None":
    """The scenario that an item is about, if it is."""
    callspec = getattr(item, "callspec", None)
    scenario: Scenario | None = callspec.params.get("defuse_scenario") if callspec else item.stash.get(SCENARIO, None)
    return scenario


def bounds_of(item: pytest.Item) -> "Bounds":
    """The bounds of an item: those in its scenario's file, else in its ``defuse`` markers, else in the options.

    Raises:
        DefuseError: an unknown bound, or one that is out of range.
    """
    from pytest_defuse.scenarios.bounds import Bounds

    scenario = scenario_of(item)
    own = Bounds.of(scenario.record.bounds) if scenario else Bounds()
    marked = Bounds.of(marker_values(item, "defuse"))
    return own.over(marked.over(item.config.stash[SESSION].options.bounds or Bounds()))


def asks(item: pytest.Item) -> bool:
    """Whether anybody asks for bounds in an item: a marker, even an empty one, or the options."""
    return item.get_closest_marker("defuse") is not None or item.config.stash[SESSION].options.bounds is not None


def marker_values(item: pytest.Item, name: str) -> dict[str, Any]:
    """The keyword arguments of all markers of a name on an item; the closest marker wins for each.

    Raises:
        DefuseError: a marker with positional arguments.
    """
    values: dict[str, Any] = {}
    for marker in item.iter_markers(name):
        if marker.args:
            raise DefuseError(f"@pytest.mark.{name} takes names with values, such as {name}(name=value).")
        values = {**marker.kwargs, **values}
    return values


def parametrize_scenarios(metafunc: pytest.Metafunc) -> None:
    """Give a test one item per accepted scenario that its ``only`` bound names, or one that says why there is none.

    Raises:
        DefuseError: the store cannot be read, or ``only`` names something that is not there.
    """
    session = metafunc.config.stash[SESSION]
    scenarios = session.accepted(bounds_of(metafunc.definition).only)
    if scenarios:
        metafunc.parametrize("defuse_scenario", scenarios, ids=[s.id for s in scenarios], indirect=True)
    else:
        root = session.options.store
        reason = f"no accepted scenario in {root}: run pytest --defuse-discover and accept what you can label"
        skipped = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none-accepted")
        metafunc.parametrize("defuse_scenario", [skipped], indirect=True)


def _discover(defuse_discovery: object) -> None:
    """Discovery as a test item of its own."""
