"""What the plugin remembers during one pytest session: the subjects' runs, and results as they arrive."""

from typing import TYPE_CHECKING, Any

import pytest

from pytest_defuse.errors import DefuseError
from pytest_defuse.gate.bounds import Bounds
from pytest_defuse.options import Options
from pytest_defuse.progress import Progress

if TYPE_CHECKING:
    from pytest_defuse.report.results import Result
    from pytest_defuse.run import SubjectRun
    from pytest_defuse.subject import Subject

SESSION = pytest.StashKey["DefuseSession"]()
RESULTS = pytest.StashKey[list[dict[str, Any]]]()


class DefuseSession:
    """The plugin object of one session; its hooks are those that need state."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        """Start a session.

        Raises:
            pytest.UsageError: options that cannot be had together.
        """
        self.config = config
        self.options = options
        self.bounds: dict[str, Bounds] = {}
        self.correction: dict[str, Any] = {}
        self.runs: list[SubjectRun] = []
        self.results: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.problems: list[str] = []
        workers = config.getoption("numprocesses", None)
        for verb in ("discover", "correct"):
            if getattr(options, verb) and workers:
                raise pytest.UsageError(
                    f"--defuse-{verb} uses the whole machine by itself: run it without xdist workers (-n0)."
                )

    def start(self, subject: "Subject") -> "SubjectRun":
        """Begin the run of a subject; under xdist the CPU's cores are shared out among the workers."""
        from pytest_defuse.devices import share_threads
        from pytest_defuse.run import SubjectRun

        if self.runs and self.options.correct_output:
            raise DefuseError(
                "--defuse-correct-output names one file, but this session corrects several subjects: run one at a time."
            )
        share_threads(getattr(self.config, "workerinput", {}).get("workercount", 1))
        run = SubjectRun(subject, self.options, self.bounds, self.correction, self._progress())
        self.runs.append(run)
        return run

    def record(self, item: pytest.Item, result: "Result") -> None:
        """Let a result travel with an item's report, through xdist if need be, and into JUnit."""
        from pytest_defuse.report.results import encode, properties

        item.stash.setdefault(RESULTS, []).append(encode(result))
        item.user_properties += properties(result)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Remember bounds and how to correct; add the item that --defuse-discover needs when no test asks for it."""
        for item in items:
            self._remember_correction(item)
            callspec = getattr(item, "callspec", None)
            scenario = callspec.params.get("defuse_scenario") if callspec else None
            if scenario is not None:
                self.bounds[scenario.id] = bounds_of(item)
        if self.options.discover and not any("defuse_discovery" in fixtures_of(item) for item in items):
            users = [item for item in items if "defuse_subject" in fixtures_of(item)]
            parent = users[0].getparent(pytest.Module) if users else session
            items.append(pytest.Function.from_parent(parent, name="defuse-discover", callobj=_discover))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather what reports carry, also those of xdist workers."""
        self.results += getattr(report, "defuse_results", [])
        if report.failed and getattr(report, "defuse_gate", False):
            self.failed.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what the session was asked to write; what cannot be, and a missed bound, fail the run."""
        wanted = self.results or self.runs or self.options.report or self.options.summary
        if hasattr(self.config, "workerinput") or not wanted:
            return
        from pytest_defuse.finish import finish_correction, write_reports
        from pytest_defuse.report.results import encode

        # What was interrupted has not been judged: its training is kept, and the next run goes on from it.
        runs = [] if session.exitstatus == pytest.ExitCode.INTERRUPTED else self.runs
        corrections = [result for run in runs if (result := finish_correction(run, self.results, self.failed))]
        self.results += map(encode, corrections)
        self.problems = write_reports(self.options, self.results, self.failed)
        missed = any(result.problems for result in corrections)
        if (self.problems or missed) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the results; under -q only what went wrong."""
        if self.results and self.config.option.verbose >= 0:
            from pytest_defuse.report.results import Results
            from pytest_defuse.report.terminal import render

            terminalreporter.section("defuse")
            terminalreporter.write(
                render(
                    Results.of(self.results),
                    width=terminalreporter._tw.fullwidth,
                    color=terminalreporter.hasmarkup,
                    start=self.config.invocation_params.dir,
                )
            )
        for problem in self.problems:
            terminalreporter.write_line(problem, red=True)

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
        from pytest_defuse.report.progress import VisibleProgress

        capture = self.config.pluginmanager.getplugin("capturemanager")
        if self.config.option.verbose < 0 or capture is None:
            return Progress()
        return VisibleProgress(capture.global_and_fixture_disabled)


def fixtures_of(item: pytest.Item) -> list[str]:
    """All fixtures that an item uses, also through others."""
    return list(getattr(item, "fixturenames", []))


def bounds_of(item: pytest.Item) -> Bounds:
    """The bounds that an item's ``defuse`` markers give; the closest marker wins for each bound.

    Raises:
        DefuseError: a bound that is not known or out of range.
    """
    return Bounds.of(marker_values(item, "defuse"))


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
    from pytest_defuse.scenarios.store import accepted_scenarios

    root = metafunc.config.stash[SESSION].options.store
    scenarios = accepted_scenarios(root, bounds_of(metafunc.definition).only)
    if scenarios:
        metafunc.parametrize("defuse_scenario", scenarios, ids=[s.id for s in scenarios], indirect=True)
    else:
        reason = f"no accepted scenario in {root}: run pytest --defuse-discover and accept what you can label"
        skipped = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none-accepted")
        metafunc.parametrize("defuse_scenario", [skipped], indirect=True)


def _discover(defuse_discovery: object) -> None:
    """Discovery as a test item of its own."""
