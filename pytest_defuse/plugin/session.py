"""The plugin's state during one session: the subjects' runs, the results, and the files written at the end."""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_defuse.plugin.inifile import sources_of
from pytest_defuse.plugin.options import Options, to_repeat
from pytest_defuse.plugin.workers import shared_folder, sharing, worker_input
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.escaping import encodable, visible
from pytest_defuse.runtime.progress import Progress

if TYPE_CHECKING:
    from pytest_defuse.plugin.run import SubjectRun
    from pytest_defuse.report.results import Result, Results
    from pytest_defuse.scenarios.bounds import Bounds
    from pytest_defuse.scenarios.store import Scenario
    from pytest_defuse.subject.subject import Subject

SESSION = pytest.StashKey["DefuseSession"]()
RESULTS = pytest.StashKey["list[Result]"]()

WITHOUT_TESTS = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
"""pytest's options, by their names in its config, with which no test runs: such a session writes nothing."""
MAX_NAMED = 5
"""Uncovered scenarios that a notice names, so that it has one or two lines. Our choice."""


class DefuseSession:
    """The plugin object of one session; its hooks are those that need its state.

    Attributes:
        uncovered: ids of accepted scenarios that no collected test covers.
        requests: every scenario that a collected test gates, with its bounds.
        results: all results so far, encoded; in the controller of xdist, those of all workers.
        failed: ids of the failed tests of a subject.
    """

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.config, self.options = config, options
        self.uncovered: list[str] = []
        self.requests: list[tuple[Scenario, Bounds]] = []
        self.correction: dict[str, Any] = {}
        self.runs: list[SubjectRun] = []
        self.results: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self._accepted: dict[tuple[str, ...], list[Scenario]] = {}
        self._shared: Path | None = None
        self._notices: list[str] = []
        self._partial = ""
        self._problems: list[str] = []
        self._annotations = ""
        for verb in ("discover", "correct"):
            if getattr(options, verb) and (config.getoption("numprocesses", None) or config.getoption("tx", None)):
                raise pytest.UsageError(f"--defuse-{verb} uses the whole machine: run it without xdist workers (-n0).")

    def start(self, subject: "Subject") -> "SubjectRun":
        """Start the run of a subject; xdist's workers divide the CPU's cores among them."""
        from pytest_defuse.plugin.run import SubjectRun
        from pytest_defuse.subject.devices import share_threads

        if self.runs and self.options.correct_output:
            raise DefuseError(
                "--defuse-correct-output names one file, but this session corrects several subjects: run one at a time."
            )
        share_threads(worker_input(self.config).get("workercount", 1))
        run = SubjectRun(subject, self.options, self.requests, self._progress(), sharing(self.config), self.correction)
        self.runs.append(run)
        return run

    def examine(self, run: "SubjectRun", session: pytest.Session) -> None:
        """Evaluate the correction of a subject while its data is there; an interrupted one is resumed later."""
        from pytest_defuse.plugin.finish import examine_correction

        if session.exitstatus != pytest.ExitCode.INTERRUPTED:
            examine_correction(run, self.failed)

    def accepted(self, only: tuple[str, ...] = ()) -> "list[Scenario]":
        """The accepted scenarios of all subjects, or those that ``only`` names; the store is read once."""
        from pytest_defuse.scenarios.store import accepted_scenarios

        if only not in self._accepted:
            self._accepted[only] = accepted_scenarios(self.options.store, only)
        return self._accepted[only]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the results of a report, including those of xdist workers."""
        self.results += getattr(report, "defuse_results", [])
        if report.failed and getattr(report, "defuse_gate", False):
            self.failed.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Note the folder that xdist's workers will share, to remove it at the end."""
        self._shared = shared_folder(node.workerinput)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the uncovered scenarios from an xdist worker: all workers collect the same tests."""
        self.uncovered = getattr(node, "workeroutput", {}).get("defuse_uncovered", [])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write corrections and reports; a file that cannot be written and a refused correction fail the run."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["defuse_uncovered"] = self.uncovered
            return
        if self._shared:
            shutil.rmtree(self._shared, ignore_errors=True)
        self._partial = _interruption(session)
        self._notices = self._notes()
        if any(self.config.getoption(name, False) for name in WITHOUT_TESTS):
            return
        options = self.options
        reports = options.results or options.report or options.summary or options.code_quality
        if not (self.results or self.runs or reports):
            return
        from pytest_defuse.plugin.finish import finish_correction, write_reports
        from pytest_defuse.report.findings import findings, render_github, repository_root
        from pytest_defuse.report.results import encode

        # An interrupted session has not evaluated its corrections; the next one resumes them.
        runs = [] if session.exitstatus == pytest.ExitCode.INTERRUPTED else self.runs
        corrections = [result for run in runs if (result := finish_correction(run, self.results, self.failed))]
        self.results += map(encode, corrections)
        results = self._collected()
        self._problems = write_reports(options, results)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self._annotations = render_github(findings(results, repository_root()))
        refused = any(result.problems for result in corrections)
        if (self._problems or refused) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the results, unless the run is quiet."""
        if (self.results or self._notices) and self.config.get_verbosity() >= 0:
            from pytest_defuse.report.terminal import render

            text = render(
                self._collected(),
                width=self.config.get_terminal_writer().fullwidth,
                color=terminalreporter.hasmarkup,
                start=self.config.invocation_params.dir,
                verbose=self.config.get_verbosity() > 0,
                encoding=getattr(sys.stdout, "encoding", None),
            )
            terminalreporter.section("defuse")
            terminalreporter.write(text)

    def pytest_unconfigure(self) -> None:
        """Print annotations and problems, even with -q and --no-summary."""
        if reporter := self.config.pluginmanager.get_plugin("terminalreporter"):
            encoding = getattr(sys.stdout, "encoding", None)
            reporter.write(encodable(self._annotations, encoding))
            for problem in self._problems:
                reporter.write_line(encodable(visible(problem), encoding), red=True)

    def _collected(self) -> "Results":
        from pytest_defuse.report.results import Results

        return Results.of(self.results, self.failed, self._notices, to_repeat(sources_of(self.config)), self._partial)

    def _notes(self) -> list[str]:
        """Notices about the run as a whole, before files are written."""
        notices = []
        if self.uncovered and collects_all(self.config):
            more = len(self.uncovered) - MAX_NAMED
            names = ", ".join(self.uncovered[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
            notices.append(f"no test covers {names}: use defuse_scenario in a test, without only=, or reject them")
        file = self.options.baseline
        if self.results and file and not file.exists():
            notices.append(f"there is no baseline yet at {file}: save one with --defuse-save-baseline {file}")
        return notices

    def _progress(self) -> Progress:
        """Progress on the terminal; none with -q."""
        from pytest_defuse.plugin.progress import VisibleProgress

        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if self.config.get_verbosity() < 0 or capture is None:
            return Progress()
        return VisibleProgress(capture.global_and_fixture_disabled)


def _interruption(session: pytest.Session) -> str:
    """Why pytest stopped before the last test, in words; empty if it did not."""
    codes = pytest.ExitCode
    if session.exitstatus in (codes.OK, codes.TESTS_FAILED, codes.NO_TESTS_COLLECTED):
        return str(session.shouldfail or session.shouldstop or "")
    return "an internal error of pytest" if session.exitstatus == codes.INTERNAL_ERROR else "the run was interrupted"


def collects_all(config: pytest.Config) -> bool:
    """Whether the run collects all tests of the project, so that an uncovered scenario is covered by no test at all."""
    sources = pytest.Config.ArgsSource
    if config.args_source == sources.ARGS or any(
        config.getoption(name, False) for name in ("lf", "ignore", "ignore_glob")
    ):
        return False
    return config.args_source == sources.TESTPATHS or config.invocation_params.dir == config.rootpath


def record(item: pytest.Item, *results: "Result") -> None:
    """Attach results to an item's report, and their figures to JUnit's."""
    from pytest_defuse.report.junit import properties

    item.stash.setdefault(RESULTS, []).extend(results)
    item.user_properties += [row for result in results for row in properties(result)]
