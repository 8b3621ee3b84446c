"""The hooks of the plugin. No import here loads torch, numpy or pydantic."""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_defuse.plugin import collection, fixtures
from pytest_defuse.plugin.inifile import sources_of
from pytest_defuse.plugin.markers import MARKERS, fixtures_of, scenario_key
from pytest_defuse.plugin.options import TABLE, check_store, resolve
from pytest_defuse.plugin.session import DefuseSession, subject_name
from pytest_defuse.plugin.stash import FOREIGN, INCONCLUSIVE, RESULTS, SESSION, SUBJECT
from pytest_defuse.runtime.errors import DefuseError, InconclusiveError
from pytest_defuse.runtime.escaping import visible

if TYPE_CHECKING:
    from pytest_defuse.gate.results import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register every option of the table; its default here is None, so that the ini file can set it."""
    group = parser.getgroup("defuse", "model regression testing (pytest-defuse)")
    for row in TABLE:
        flag = f"--defuse-{row.name}"
        if row.metavar is None:
            group.addoption(flag, dest=row.key, action="store_true", default=None, help=row.help)
        else:
            default = f" (default: {row.default})" if row.default else ""
            group.addoption(flag, dest=row.key, metavar=row.metavar, default=None, help=row.help + default)
        parser.addini(row.key, row.help, type="string", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, resolve the options, and register the session and the fixtures."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    try:
        sources = sources_of(config)
        options = resolve(sources)
        check_store(options, sources)
        session = DefuseSession(config, options)
    except DefuseError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[SESSION] = session
    config.pluginmanager.register(session, "defuse-session")
    config.pluginmanager.register(fixtures, "defuse-fixtures")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that use defuse_scenario one item for each accepted scenario."""
    if "defuse_scenario" in metafunc.fixturenames:
        try:
            collection.parametrize_scenarios(metafunc)
        except DefuseError as error:
            raise pytest.Collector.CollectError(str(error)) from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a scenario.yaml with --defuse-collect, or if it is named on the command line."""
    if file_path.name != "scenario.yaml":
        return None
    if not (parent.config.stash[SESSION].options.collect or parent.session.isinitpath(file_path)):
        return None
    return collection.ScenarioFile.from_parent(parent, path=file_path)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Note what the collected tests cover and require, and add a discovery if no test runs one.

    A test that is deselected still covers its scenario, but requires nothing of the model.
    """
    defuse = config.stash[SESSION]
    defuse.note_collected(items)
    result = yield
    defuse.note_selected(items)
    if defuse.options.discover and (discovery := collection.discovery_item(session, items)):
        items.append(discovery)
    return result


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain a comparison with an accuracy: the difference in images, and whether it may be chance."""
    from pytest_defuse.statistics.accuracy import Accuracy

    accuracy = next((side for side in (left, right) if isinstance(side, Accuracy)), None)
    return accuracy.explain(op, left, right) if accuracy else None


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, Any] | None:
    """Report INCONCLUSIVE, for pytest a skipped test, by its name."""
    if report.skipped and getattr(report, "defuse_inconclusive", False):
        return "skipped", "I", ("INCONCLUSIVE", {"yellow": True})
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a test without a scenario, or whose fixture cannot be judged; with --defuse-strict it fails."""
    try:
        collection.require_scenario(item)
        yield
    except (InconclusiveError, pytest.skip.Exception) as error:
        _fail_if_a_bound_fails(item)
        _undecided(item, error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that passes although a bound that was set for it fails: it may not have called ``check``.

    Skip one that passes with a verdict of INCONCLUSIVE, with its figures; with --defuse-strict it fails.
    """
    undecided = None
    try:
        yield
    except (InconclusiveError, pytest.skip.Exception) as error:
        undecided = error
    _fail_if_a_bound_fails(item)
    if undecided:
        _undecided(item, undecided)
    for verdict in _verdicts(item):
        if verdict.outcome == "INCONCLUSIVE":
            _undecided(item, InconclusiveError(_sentence(verdict)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print only the sentence of a DefuseError, without a traceback; attach an item's results to its report."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, DefuseError):
        report.longrepr = str(call.excinfo.value)
    # xdist sends plain values only; an accuracy that a test recorded is a float with more attributes.
    report.user_properties = [(k, float(v) if isinstance(v, float) else v) for k, v in report.user_properties]
    inconclusive = report.skipped and INCONCLUSIVE in item.stash and report.when != "teardown"
    if inconclusive:
        path, line, _ = item.reportinfo()  # not the line of this file that skipped the test
        report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {item.stash[INCONCLUSIVE]}")
    # Plain attributes of a report travel through xdist as JSON.
    attributes: dict[str, Any] = {
        "defuse_gate": "defuse_subject" in fixtures_of(item) or SUBJECT in item.stash,
        "defuse_subject": subject_name(item),
        "defuse_scenario": scenario_key(item),
        "defuse_foreign": FOREIGN in item.stash,
        "defuse_inconclusive": inconclusive,
    }
    results = item.stash.get(RESULTS, [])
    if report.when == "teardown" and results:
        from pytest_defuse.report.results import encode

        attributes["defuse_results"] = [encode(result) for result in results]
    vars(report).update(attributes)
    return report


def _undecided(item: pytest.Item, error: BaseException) -> NoReturn:
    """Skip a test that cannot be judged; a test that skips itself stays as it is."""
    if not isinstance(error, InconclusiveError):
        raise error
    if item.config.stash[SESSION].options.strict:
        pytest.fail(f"{error} --defuse-strict requires a decision.", pytrace=False)
    item.stash[INCONCLUSIVE] = str(error)
    pytest.skip(str(error))


def _fail_if_a_bound_fails(item: pytest.Item) -> None:
    """Fail a test for a bound that was set for it, whatever it does with the verdict."""
    for verdict in _verdicts(item):
        if any(check.outcome == "FAIL" and check.requested for check in verdict.checks):
            pytest.fail(_sentence(verdict), pytrace=False)


def _verdicts(item: pytest.Item) -> "list[Verdict]":
    """The verdicts that the fixtures of an item have so far."""
    if not (results := item.stash.get(RESULTS, [])):
        return []
    from pytest_defuse.gate.results import Verdict

    return [result for result in results if isinstance(result, Verdict)]


def _sentence(verdict: "Verdict") -> str:
    from pytest_defuse.gate.sentences import sentence

    return visible(sentence(verdict))
