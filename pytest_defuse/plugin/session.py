"""The plugin's state during one session: the subjects' runs, the results, and the files written at the end."""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_defuse.plugin.coverage import Coverage, Decision, decide, is_full
from pytest_defuse.plugin.inifile import sources_of
from pytest_defuse.plugin.markers import scenario_key, subject_source
from pytest_defuse.plugin.options import Options, holds_store, to_repeat
from pytest_defuse.plugin.requirements import Requirements, requirements
from pytest_defuse.plugin.stash import RESULTS, SUBJECT
from pytest_defuse.plugin.workers import shared_folder, sharing, worker_input
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.escaping import encodable, visible
from pytest_defuse.runtime.progress import Progress

if TYPE_CHECKING:
    from pytest_defuse.plugin.run import SubjectRun
    from pytest_defuse.report.results import Result, Results
    from pytest_defuse.scenarios.scenario import Scenario
    from pytest_defuse.subject.subject import Subject

WITHOUT_TESTS = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan", "setuponly")
"""pytest's options, by their names in its config, with which no test runs: such a session writes nothing."""


class DefuseSession:
    """The plugin object of one session; its hooks are those that need its state.

    Attributes:
        coverage: what the collected tests cover; complete at the end of the session.
        requirements: what the collected tests require, by the source of their subject.
        results: all results so far, encoded; in the controller of xdist, those of all workers.
        tests: the sources of the subjects of all collected tests that have one, by the tests' ids.
        names: the names of the subjects that have been evaluated, by their source.
        failed: names of the subjects of failed tests, by the tests' ids; empty for a test that did not get its subject.
    """

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.config, self.options = config, options
        self.coverage = Coverage()
        self.requirements: dict[tuple[str, int] | None, Requirements] = {}
        self.runs: list[SubjectRun] = []
        self.results: list[dict[str, Any]] = []
        self.tests: dict[str, tuple[str, int]] = {}
        self.names: dict[tuple[str, int] | None, str] = {}
        self.failed: dict[str, str] = {}
        self._selected: list[str] = []
        self._finished: set[str] = set()
        self._not_collected: list[str] = []
        self._ran: set[str] = set()
        self._foreign: set[str] = set()
        self._subjects: set[str] = set()
        self._unreadable: list[str] = []
        self._accepted: dict[tuple[str, ...], list[Scenario]] = {}
        self._shared: Path | None = None
        self._workers_lost = False
        self._notices: list[str] = []
        self._partial = ""
        self._problems: list[str] = []
        self._unjudged: tuple[str, ...] = ()
        self._annotations = ""
        for verb in ("discover", "correct"):
            if getattr(options, verb) and (config.getoption("numprocesses", None) or config.getoption("tx", None)):
                raise pytest.UsageError(f"--defuse-{verb} uses the whole machine: run it without xdist workers (-n0).")

    @property
    def one_subject(self) -> bool:
        """Whether all collected tests have the same subject."""
        return len(self.requirements.keys() - {None}) == 1

    def note_collected(self, items: Sequence[pytest.Item]) -> None:
        """Note the accepted scenarios, and those that the tests cover before any is deselected."""
        accepted: list[Scenario] = []
        if holds_store(self.options.store):
            try:
                accepted = self.accepted()
            except DefuseError as error:  # also in a project none of whose tests reads the store
                self._unreadable = [str(error)]
        self.coverage = Coverage([scenario.full_name for scenario in accepted], sorted({*map(scenario_key, items)}))
        self.tests = {item.nodeid: source for item in items if (source := subject_source(item))}

    def note_selected(self, items: Sequence[pytest.Item]) -> None:
        """Note what the tests that remain cover and require."""
        self.coverage = self.coverage._replace(selected=sorted({*map(scenario_key, items)}))
        self._selected = [item.nodeid for item in items if item.nodeid in self.tests]
        groups: dict[tuple[str, int] | None, list[pytest.Item]] = {}
        for item in items:
            groups.setdefault(subject_source(item), []).append(item)
        self.requirements = {source: requirements(group) for source, group in groups.items()}

    def run_of(self, subject: "Subject", item: pytest.Item) -> "SubjectRun | None":
        """The run of an item's subject, if it has started."""
        item.stash[SUBJECT] = self.names[subject_source(item)] = subject.name
        for run in self.runs:
            if run.subject is subject:
                return run
            if run.subject.name == subject.name:
                raise DefuseError(
                    f"Two subjects of this run have the name {subject.name!r}: give each its own name, and the fixture "
                    'defuse_subject the scope "session".'
                )
        return None

    def start(self, subject: "Subject", item: pytest.Item) -> "SubjectRun":
        """Start the run of an item's subject; xdist's workers divide the CPU's cores among them."""
        from pytest_defuse.plugin.run import SubjectRun
        from pytest_defuse.subject.devices import share_threads

        if self.runs and self.options.correct_output:
            raise DefuseError(
                "--defuse-correct-output names one file, but this session corrects several subjects: run one at a time."
            )
        share_threads(worker_input(self.config).get("workercount", 1))
        required = self.requirements.get(subject_source(item), Requirements())
        run = SubjectRun(
            subject, self.options, required.requests, self._progress(), sharing(self.config), required.correction
        )
        self.runs.append(run)
        return run

    def examine(self, run: "SubjectRun", session: pytest.Session) -> None:
        """Evaluate the correction of a subject while its data is there; an interrupted one is resumed later."""
        from pytest_defuse.plugin.finish import examine_correction

        if session.exitstatus != pytest.ExitCode.INTERRUPTED:
            examine_correction(run, promising=not self._failed_of(run))

    def accepted(self, only: tuple[str, ...] = ()) -> "list[Scenario]":
        """The accepted scenarios of all subjects, or those that ``only`` names; the store is read once."""
        from pytest_defuse.scenarios.lookup import accepted_scenarios

        if only not in self._accepted:
            self._accepted[only] = accepted_scenarios(self.options.store, only)
        return self._accepted[only]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the results of a report, including those of xdist workers."""
        self.results += getattr(report, "defuse_results", [])
        subject, key = getattr(report, "defuse_subject", ""), getattr(report, "defuse_scenario", "")
        if key:
            (self._foreign if getattr(report, "defuse_foreign", False) else self._ran).add(key)
        if subject:
            self._subjects.add(subject)
        if report.failed and getattr(report, "defuse_gate", False):
            self.failed[report.nodeid] = subject or self.failed.get(report.nodeid, "")
        if report.when == "teardown":
            self._finished.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what cannot be collected."""
        if report.failed:
            self._not_collected.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Note the folder that xdist's workers will share, to remove it at the end."""
        self._shared = shared_folder(node.workerinput)
        self._workers_lost = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what the tests cover from an xdist worker: all workers collect the same tests."""
        if output := getattr(node, "workeroutput", {}).get("defuse_coverage"):
            coverage, self._unreadable = output
            self.coverage, self._workers_lost = Coverage(*coverage), False

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write corrections and reports; what was required and is missing fails the run."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["defuse_coverage"] = list(self.coverage[:3]), self._unreadable
            return
        if self._shared:
            shutil.rmtree(self._shared, ignore_errors=True)
        if any(self.config.getoption(name, False) for name in WITHOUT_TESTS):
            return
        self._partial = _interruption(session)
        decision, options = self._decide(session.exitstatus), self.options
        self._unjudged, self._notices = decision.problems, [*decision.notices, *self._notes()]
        reports = options.results or options.report or options.summary or options.code_quality or options.save_baseline
        if self.results or self.runs or reports:
            self._finish(session)
        if (self._problems or self._unjudged) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _finish(self, session: pytest.Session) -> None:
        """Write the corrected checkpoints, the baseline and the reports."""
        from pytest_defuse.plugin.finish import finish_correction, is_settled, write_reports
        from pytest_defuse.report.findings import findings, render_github, repository_root
        from pytest_defuse.report.results import encode

        # An interrupted session has not evaluated its corrections; the next one resumes them.
        runs = [] if session.exitstatus == pytest.ExitCode.INTERRUPTED else self.runs
        corrections = [
            result
            for run in runs
            if (result := finish_correction(run, self.results, self._failed_of(run), self._not_judged(run)))
        ]
        self.results += map(encode, corrections)
        if any(result.problems for result in corrections) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        passed = session.exitstatus == pytest.ExitCode.OK and not self._unjudged
        unsettled = [verdict.name for verdict in self._collected().sets if not is_settled(verdict)]
        if passed and self.options.save_baseline and unsettled:
            self._notices.append(f"the baseline does not take {', '.join(unsettled)}: the verdict is not PASS")
        results = self._collected()
        self._problems = write_reports(self.options, results, passed=passed)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self._annotations = render_github(findings(results, repository_root()))

    def _tests_of(self, run: "SubjectRun") -> list[str]:
        """The ids of the collected tests of a run's subject."""
        return [test for test, source in self.tests.items() if self.names.get(source) == run.subject.name]

    def _failed_of(self, run: "SubjectRun") -> list[str]:
        """The ids of the failed tests of a run's subject, also of those that failed before they had it."""
        own = self._tests_of(run)
        return [test for test, name in self.failed.items() if name == run.subject.name or test in own]

    def _not_judged(self, run: "SubjectRun") -> list[str]:
        """What did not run to its end and might have said something about a run's subject, in words."""
        left = [test for test in self._tests_of(run) if test not in self._finished]
        return [
            *([f"the run is partial: {self._partial}"] if self._partial else []),
            *(f"{name} could not be collected" for name in self._not_collected),
            *([f"{len(left)} tests of the model did not run, such as {left[0]}"] if left else []),
        ]

    def _decide(self, status: int) -> Decision:
        """What the scenarios without a verdict, and what was requested and not done, mean for this run."""
        results = [f"{item['subject']}/{item['id']}" for item in self.results if item["kind"] == "ScenarioResult"]
        full, complete = is_full(self.config), not self._partial
        decision = decide(
            self.coverage._replace(
                ran=self._ran,
                foreign=self._foreign,
                results=results,
                subjects=self._subjects,
                full=full,
                complete=complete,
                strict=self.options.strict,
            )
        )
        if not full and not self.results:  # a run of other tests
            decision = decision._replace(notices=())
        unreadable = self._unreadable if full and complete else []
        undone = self._undone() if complete and status == pytest.ExitCode.OK else []
        return decision._replace(problems=(*unreadable, *undone, *decision.problems))

    def _undone(self) -> Iterator[str]:
        """What a run or an option requested and nobody did."""
        if self._workers_lost:
            yield "no worker of pytest-xdist reported what its tests cover: run again"
        if left := [test for test in self._selected if test not in self._finished]:
            yield f"{len(left)} tests of the model did not run, such as {left[0]}: run them again"
        if self.options.correct and all(
            run.started is None or isinstance(run.started, DefuseError) for run in self.runs
        ):
            yield "--defuse-correct corrected no model: run the tests of the gate with it"
        kinds = {item["kind"] for item in self.results}
        if self.options.discover and not kinds & {"DiscoveryResult", "ExplanationResult"}:
            yield "--defuse-discover searched no model: run the tests that use defuse_discovery with it"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the results, unless the run is quiet."""
        if (self.results or self._notices or self._unjudged) and self.config.get_verbosity() >= 0:
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
            for problem in (*self._unjudged, *self._problems):
                reporter.write_line(encodable(visible(problem), encoding), red=True)

    def _collected(self) -> "Results":
        from pytest_defuse.report.results import Results

        repeat = to_repeat(sources_of(self.config))
        return Results.of(self.results, list(self.failed), self._notices, repeat, self._partial, self._unjudged)

    def _notes(self) -> list[str]:
        """Notices about the baseline, and about all scenarios of a full run together."""
        notices, file = [], self.options.baseline
        if self.results and file and not file.exists():
            notices.append(f"there is no baseline yet at {file}: save one with --defuse-save-baseline {file}")
        if self.results and is_full(self.config):
            from pytest_defuse.gate.chance import chance_sentence

            notices += filter(None, [chance_sentence(self._collected().scenarios)])
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


def subject_name(item: pytest.Item) -> str:
    """The name of an item's subject; empty before the item has one, or if it is not a ``Subject``."""
    subject = (getattr(item, "funcargs", None) or {}).get("defuse_subject")
    name = getattr(subject, "name", "")
    return item.stash.get(SUBJECT, name if isinstance(name, str) else "")


def record(item: pytest.Item, *results: "Result") -> None:
    """Attach results to an item's report, and their figures to JUnit's."""
    from pytest_defuse.report.junit import properties

    item.stash.setdefault(RESULTS, []).extend(results)
    item.user_properties += [row for result in results for row in properties(result)]
