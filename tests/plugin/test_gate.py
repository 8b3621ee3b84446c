"""The gate in pytest: one item per scenario, without xdist, with -n0 and with -n2."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from pytest_defuse.scenarios.scenario import Scenario
from tests.plugin.conftest import CONFTEST, TESTS, tree

Accept = Callable[..., Scenario]


@pytest.mark.parametrize("workers", [(), ("-n0",), ("-n2",)], ids=["plain", "n0", "n2"])
def test_one_item_a_scenario(project: pytest.Pytester, accept: Accept, workers: tuple[str, ...]) -> None:
    good, bad = accept(mean=0.55), accept(mean=0.45)
    before = tree(project.path)
    result = project.runpytest("-v", *workers)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines_random(
        [
            f"*test_scenario?{good.id}?*",
            f"*scenario {bad.id} (label 'bright'): accuracy 0/16 = 0.0% (95% interval 0.0% to 19.4%) is below *",
            f"{bad.id}*bright*0/16 = 0.0%*FAIL*",
            "test set of toy: 200/200 = 100.0% (95% interval 98.1% - 100.0%)",
        ]
    )
    assert tree(project.path) == before, "a gate writes nothing"


def test_a_passing_run_shows_its_bounds(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    result = project.runpytest()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*defuse*", "*16/16 = 100.0%*90.0%*PASS*"])


def test_a_gate_does_not_load_the_engine_of_discovery(project: pytest.Pytester, accept: Accept) -> None:
    """It would take longer than the gate itself (benchmarks/gate.py)."""
    accept(mean=0.55)
    with (project.path / "conftest.py").open("a") as conftest:
        conftest.write("""
def pytest_unconfigure():
    import sys
    print("loaded:", sorted({"torch", "scipy", "sklearn"} & set(sys.modules)))
""")
    project.runpytest_subprocess().stdout.fnmatch_lines(["loaded: [[]'torch'[]]"])


def test_quiet_prints_no_table(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    result = project.runpytest("-q")
    assert "test set of toy" not in result.stdout.str()


def test_only_accepted_scenarios_are_gated(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.45, label=None)
    accept(mean=0.44, label=None, status="rejected")
    result = project.runpytest("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    reason = "*no accepted scenario in *: run pytest --defuse-discover*"
    result.stdout.fnmatch_lines([reason])
    strict = project.runpytest("--defuse-strict")
    strict.assert_outcomes(passed=1, errors=1)
    strict.stdout.fnmatch_lines([f"{reason} --defuse-strict requires a decision."])


@pytest.mark.parametrize(
    "test",
    [
        "def test(defuse_scenario, defuse_test_accuracy): defuse_test_accuracy.check(); defuse_scenario.check()",
        "def test(defuse_scenario): pytest.skip('later')",
        "def test(defuse_scenario, later): pass",
        "def test(checked): pass",
    ],
    ids=["inconclusive", "skip", "a fixture skips", "a fixture checks"],
)
def test_no_skip_hides_a_bound_that_fails(project: pytest.Pytester, accept: Accept, test: str) -> None:
    scenario = accept(mean=0.45)
    project.makepyfile(
        test_model=f"""
        import pytest

        pytestmark = pytest.mark.defuse(min_accuracy=0.999, confidence=0.95)

        @pytest.fixture
        def later(): pytest.skip("later")

        @pytest.fixture
        def checked(defuse_scenario, defuse_test_accuracy): defuse_test_accuracy.check()

        {test}
        """
    )
    result = project.runpytest("--defuse-save-baseline=b.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*{scenario.id}*0/16 = 0.0%*is below the bound 99.9%*"])
    assert "skipped" not in result.parseoutcomes()
    assert not (project.path / "b.json").exists()
    project.makepyfile(
        test_model=project.path.joinpath("test_model.py")
        .read_text()
        .replace("def test(", "@pytest.mark.xfail\ndef test(")
    )
    project.runpytest().assert_outcomes(xfailed=1)


def test_a_lost_store_fails_a_strict_run_before_the_model_is_loaded(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    project.runpytest("--defuse-strict").assert_outcomes(passed=2)
    shutil.rmtree(project.path / "fixtures")
    result = project.runpytest("--defuse-strict", "-k", "scenario", "--setup-show")
    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.no_fnmatch_line("*SETUP*defuse_subject*")


@pytest.mark.parametrize(
    ("scenario_bounds", "marker", "options", "failed"),
    [
        ("{min_accuracy: 0.9}", "", (), 1),
        ("{}", "min_accuracy=0.9", (), 1),
        ("{}", "", ("--defuse-bounds=min_accuracy=0.9",), 2),
        ("{}", "", (), 0),
    ],
    ids=["scenario", "marker", "option", "none"],
)
def test_a_bound_that_fails_fails_a_test_that_does_not_check(
    project: pytest.Pytester, accept: Accept, scenario_bounds: str, marker: str, options: tuple[str, ...], failed: int
) -> None:
    scenario = accept(mean=0.45)
    scenario.yaml.write_text(scenario.yaml.read_text().replace("bounds: {}", f"bounds: {scenario_bounds}"))
    project.makepyfile(
        test_model=f"""
        import pytest

        @pytest.mark.defuse({marker})
        def test_scenario(defuse_scenario):
            assert defuse_scenario.images is not None

        def test_together(defuse_overall):
            assert defuse_overall.total
        """
    )
    result = project.runpytest(*options)
    result.assert_outcomes(passed=2 - failed, failed=failed)
    if failed:
        result.stdout.fnmatch_lines([f"*{scenario.id}*0/16 = 0.0%*is below the bound 90.0% (min_accuracy)*"])


def test_an_edit_of_the_yaml_accepts(project: pytest.Pytester, accept: Accept) -> None:
    candidate = accept(mean=0.55, label=None)
    text = candidate.yaml.read_text()
    candidate.yaml.write_text(
        text.replace('status: "candidate"', "status: accepted").replace("label: null", "label: bright", 1)
    )
    project.runpytest().assert_outcomes(passed=2)


def test_without_a_bound_the_model_must_not_get_worse(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    project.makepyfile(test_model="def test_scenario(defuse_scenario): defuse_scenario.check()")
    project.runpytest().assert_outcomes(passed=1)
    project.makeconftest(CONFTEST.replace("torch.tensor(0.5)", "torch.tensor(0.58)"))
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*is below the bound 100.0% (no regression from discovery); misclassified as 'dark' (16)."]
    )


def test_only_chooses_by_id_or_label(project: pytest.Pytester, accept: Accept) -> None:
    chosen = accept(mean=0.55)
    accept(mean=0.45)
    marker = "@pytest.mark.defuse(min_accuracy=0.9, only='{}')\ndef test_it(defuse_scenario): defuse_scenario.check()"
    project.makepyfile(test_model="import pytest\n" + marker.format(chosen.id))
    project.runpytest().assert_outcomes(passed=1)
    project.makepyfile(test_model="import pytest\n" + marker.format("bright"))
    project.runpytest().assert_outcomes(passed=1, failed=1)
    project.makepyfile(test_model="import pytest\n" + marker.format("cat"))
    result = project.runpytest()
    result.stdout.fnmatch_lines(["*defuse(only=...) names 'cat', which is neither the id, the label nor*"])
    assert "Traceback" not in result.stdout.str()


def test_results_reach_junit_report_and_summary(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.45)
    arguments = ("--junitxml=junit.xml", "--defuse-report=out/report.html", "--defuse-summary=summary.md")
    project.runpytest(*arguments).assert_outcomes(passed=1, failed=1)
    properties = {(p.get("name"), p.get("value")) for p in ET.parse(project.path / "junit.xml").iter("property")}
    assert {("defuse_accuracy", "0/16"), ("defuse_scenario", scenario.id), ("defuse_outcome", "FAIL")} <= properties
    outcomes = [value for name, value in properties if name == "defuse_outcome"]
    assert outcomes == ["FAIL"], "the test set has no bound"
    assert scenario.id in (project.path / "out" / "report.html").read_text()
    assert scenario.id in (project.path / "summary.md").read_text()


def test_a_baseline_bounds_the_drop(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.55)
    project.makepyfile(
        test_model="""
        import pytest
        @pytest.mark.defuse(max_drop=0.05, max_flips=3)
        def test_scenario(defuse_scenario): defuse_scenario.check()
        @pytest.mark.defuse
        def test_set(defuse_test_accuracy): defuse_test_accuracy.check()
        """
    )
    both = ("--defuse-baseline=baseline.json", "--defuse-save-baseline=baseline.json")
    missing = project.runpytest(*both)
    missing.assert_outcomes(errors=2)
    missing.stdout.fnmatch_lines(
        [
            "*baseline.json cannot be read (*): make it with *; --defuse-first-run accepts *",
            "*the baseline *baseline.json was not written: the run did not pass.",
        ]
    )
    assert not (project.path / "baseline.json").exists()
    unnamed = project.runpytest("-v")
    unnamed.assert_outcomes(errors=2)
    unnamed.stdout.fnmatch_lines_random(
        [
            f"*{scenario.id}*scenario.yaml: max_drop needs a baseline: set a bound such as min_accuracy, or save*",
            "no accuracy was recorded to compare with: set a bound such as min_accuracy, or save a baseline with *",
        ]
    )
    first = project.runpytest(*both, "--defuse-first-run")
    first.assert_outcomes(passed=2)
    first.stdout.fnmatch_lines(["there is no baseline yet at *baseline.json: save one with --defuse-save-baseline*"])
    saved = json.loads((project.path / "baseline.json").read_text())["subjects"]["toy"]
    assert saved["scenarios"][scenario.id]["predicted"] == [saved["classes"].index("bright")] * 16
    assert len(saved["test"]["confidences"]) == 200

    project.makeconftest(CONFTEST.replace("torch.tensor(0.5)", "torch.tensor(0.8)"))
    worse = project.runpytest(both[0], "--defuse-report=report.html")
    worse.assert_outcomes(failed=2)
    worse.stdout.fnmatch_lines(
        [
            "*a drop of 100.0% from the baseline (95% interval *) is more than max_drop 5.0%; 16 of 16 flipped from "
            "correct to wrong, more than max_flips 3; compared with the baseline 16 lost, 0 gained "
            "(McNemar p = 3.1e-05); misclassified as 'dark' (16).",
            "*test set of toy: accuracy * is a regression; compared with the baseline *most frequent errors: 'bright' "
            "as 'dark' (*).",
        ]
    )

    project.makeconftest(CONFTEST.replace("images(200, 1)", "images(200, 2)"))
    other = project.runpytest(*both)
    other.assert_outcomes(passed=1, errors=1)
    other.stdout.fnmatch_lines(["The baseline's images of the test set are not the subject's: save a new baseline *"])


def test_reordered_classes_and_a_baseline_of_another_subject_are_no_pass(
    project: pytest.Pytester, accept: Accept
) -> None:
    reordered = CONFTEST.replace('["dark", "bright"]', '["bright", "dark"]')
    project.makepyfile(test_model="def test_set(defuse_test_accuracy): assert defuse_test_accuracy > 0.5")
    both = ("--defuse-baseline=baseline.json", "--defuse-save-baseline=baseline.json")
    project.runpytest(*both, "--defuse-first-run").assert_outcomes(passed=1)
    project.makeconftest(reordered)
    other = project.runpytest(both[0])
    other.assert_outcomes(errors=1)
    other.stdout.fnmatch_lines(["*baseline.json: class 0 is 'dark', but in subject 'toy' it is 'bright': give *"])

    accept(mean=0.45)
    project.makepyfile(test_model=TESTS)
    stored = project.runpytest("-k", "scenario")
    stored.assert_outcomes(errors=1)
    stored.stdout.fnmatch_lines(["*store.yaml: class 0 is 'dark', but in subject 'toy' it is 'bright': give Subject*"])

    baseline = project.path / "baseline.json"
    baseline.write_text(baseline.read_text().replace('"toy"', '"toi"'))
    project.makeconftest(CONFTEST)
    renamed = project.runpytest(both[0])
    renamed.assert_outcomes(errors=2)
    renamed.stdout.fnmatch_lines(["*baseline.json is a baseline of 'toi', not of 'toy': correct the subject's name, *"])


def test_failure_modes_are_given_to_a_test(project: pytest.Pytester) -> None:
    project.makepyfile(test_model="def test_it(defuse_failure_modes): assert not defuse_failure_modes")
    project.runpytest().assert_outcomes(skipped=1)  # the toy's model has no failures on its test set


def test_options_of_ours_may_stand_in_pytest_addopts(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(mean=0.45)
    project.makepyfile(test_model="def test_scenario(defuse_scenario): defuse_scenario.check()")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest --defuse-bounds=min_accuracy=0.9")
    project.runpytest().assert_outcomes(failed=1)
    project.runpytest("--defuse-bounds=min_accuracy=0").assert_outcomes(passed=1)
