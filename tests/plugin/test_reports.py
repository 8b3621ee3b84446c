"""What a run leaves for CI services, however quiet it is."""

import json
import shlex
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from pytest_defuse.report.results_file import load_results
from pytest_defuse.report.words import gate_command
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from tests.plugin.conftest import CONFTEST, tiles, tree
from tests.scenarios.planting import plant

Accept = Callable[..., Scenario]


@pytest.mark.parametrize("workers", [(), pytest.param(("-n2",), marks=pytest.mark.slow)], ids=["plain", "n2"])
def test_a_quiet_run_in_a_service(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    accept(mean=0.55)
    bad = accept(mean=0.45)
    (project.path / "taken").touch()
    result = project.runpytest(
        "-q",
        "--no-summary",
        "--defuse-seed=3",
        "--defuse-results=out/results.json",
        "--defuse-code-quality=out/quality.json",
        "--defuse-report=taken/report.html",
        "--junitxml=out/junit.xml",
        *workers,
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    annotation = f"::error file=fixtures/toy/{bad.id}/scenario.yaml,line=5,title={bad.id} FAIL::label bright: *"
    result.stdout.fnmatch_lines([annotation, "*report.html cannot be written (*"])
    result.stdout.no_fnmatch_line("*95% interval  bound*")
    results = load_results(project.path / "out" / "results.json", project.path)
    assert len(results.scenarios) == 2
    (issue,) = json.loads((project.path / "out" / "quality.json").read_text())
    assert issue["location"] == {"path": f"fixtures/toy/{bad.id}/scenario.yaml", "lines": {"begin": 5}}
    cases = ET.parse(project.path / "out" / "junit.xml").iter("testcase")
    properties = {case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases}
    assert properties[f"test_scenario[{bad.id}]"]["defuse_outcome"] == "FAIL"
    assert properties[f"test_scenario[{bad.id}]"]["defuse_accuracy"] == "0/16"

    if not workers:
        failing = next(scenario for scenario in results.scenarios if scenario.outcome == "FAIL")
        command = shlex.split(gate_command(failing, results.arguments))
        assert command[:2] == ["pytest", "--defuse-seed=3"]
        again = project.runpytest(*command[1:])
        again.assert_outcomes(failed=1, deselected=2)


REPORTS = {
    "results": "results.json",
    "report": "report.html",
    "summary": "summary.md",
    "code-quality": "quality.json",
    "save-baseline": "baseline.json",
}


@pytest.mark.parametrize("option", ["--collect-only", "--fixtures", "--setup-plan"])
def test_a_session_that_runs_no_test_writes_nothing(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    accept(mean=0.55)
    (project.path / "step.md").touch()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "step.md"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    before = tree(project.path)
    files = [f"--defuse-{name}={file}" for name, file in REPORTS.items()]
    result = project.runpytest(option, "-p", "no:cacheprovider", *files, "--defuse-cache=cache")
    assert result.ret == pytest.ExitCode.OK
    assert tree(project.path) == before
    assert not (project.path / "cache").exists()


@pytest.mark.parametrize(
    ("test", "options", "reason"),
    [
        ("raise KeyboardInterrupt", (), "the run was interrupted"),
        ("pytest.exit('enough', returncode=7)", (), "the run was interrupted"),
        ("assert False", ("-x",), ""),  # in the words of pytest
    ],
)
def test_an_interrupted_run_says_that_its_results_are_partial(
    project: pytest.Pytester, accept: Accept, test: str, options: tuple[str, ...], reason: str
) -> None:
    accept(mean=0.55)
    project.makepyfile(test_stop=f"import pytest\ndef test_stop(): {test}\ndef test_after(): pass")
    files = ("--defuse-results=r.json", "--defuse-summary=s.md")
    result = project.runpytest_inprocess("test_model.py", "test_stop.py", *files, *options, no_reraise_ctrlc=True)
    partial = json.loads((project.path / "r.json").read_text())["partial"]
    assert partial == (reason or partial) != ""
    assert (project.path / "s.md").read_text().startswith("## toy: PARTIAL, 1 scenario (1 PASS)")
    if result.ret != 7:  # pytest prints no summary after an exit code of the user's
        result.stdout.fnmatch_lines([f"partial results, tests are missing: {partial}"])


def test_a_complete_run_is_not_partial(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.45)
    assert project.runpytest("--defuse-results=r.json").ret == pytest.ExitCode.TESTS_FAILED
    assert json.loads((project.path / "r.json").read_text())["partial"] == ""


def test_a_scenario_that_two_tests_gate_is_reported_once_with_the_worst_verdict(
    project: pytest.Pytester, accept: Accept
) -> None:
    accept(mean=0.45)
    project.makepyfile(
        test_model="""
        import pytest

        @pytest.mark.defuse(min_accuracy=0.9)
        def test_strict(defuse_scenario): defuse_scenario.check()

        @pytest.mark.defuse(min_accuracy=0.0)
        def test_loose(defuse_scenario): defuse_scenario.check()
        """
    )
    result = project.runpytest("--defuse-results=r.json", "--defuse-summary=s.md")
    result.assert_outcomes(passed=1, failed=1)
    (scenario,) = json.loads((project.path / "r.json").read_text())["scenarios"]
    assert (scenario["outcome"], len(scenario["checks"])) == ("FAIL", 2)
    assert (project.path / "s.md").read_text().startswith("## toy: 1 scenario (1 FAIL)")


COMMANDS = """
import sys
from pytest_defuse.cli import main
sys.exit(any([main(line.split()) for line in ("list", "votes", "verify", "report r.json", "list --json")]))
"""
DARK, BRIGHT = "\x1b[31mdark\u202e", "::error file=x::\u732b\u2192 @torvalds"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_steer_no_log_and_any_terminal_can_show_them(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    project.makeconftest(CONFTEST.replace('["dark", "bright"]', f"[{DARK!r}, {BRIGHT!r}]"))
    store = Store(project.path / "fixtures" / "toy")
    for mean in (0.44, 0.45):
        sheets = (tiles(mean, 0), tiles(mean, 1))
        plant(store, *sheets, BRIGHT, DARK, (DARK, BRIGHT), status="accepted", label=BRIGHT, notes=DARK)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("COLUMNS", "120")
    files = ("--defuse-results=r.json", "--defuse-summary=s.md", "--junitxml=j.xml")
    result = project.run(sys.executable, "-m", "pytest", "-v", *files)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str() + result.stderr.str()
    assert "UnicodeEncodeError" not in text
    assert "INTERNALERROR" not in text
    assert not set(text) & {"\x1b", "\u202e"}
    annotations = [line for line in text.splitlines() if line.lstrip().startswith("::")]
    assert len(annotations) == 2
    assert all(line.startswith("::error file=fixtures/toy/") for line in annotations)
    assert ("\u2500" in text) == (encoding == "utf-8")
    assert not {"\x1b", "\u202e"} & set((project.path / "j.xml").read_text() + (project.path / "s.md").read_text())
    shown = project.run(sys.executable, "-c", COMMANDS)
    assert shown.ret == 0
    assert not set(shown.stdout.str() + shown.stderr.str()) & {"\x1b", "\u202e"}
    assert not [line for line in shown.outlines if line.lstrip().startswith("::")]
