"""What was required and could not be judged is never a pass."""

import itertools
import json
from collections.abc import Callable

import pytest

from pytest_defuse.plugin.coverage import Coverage, Decision, decide
from pytest_defuse.scenarios.scenario import Scenario
from tests.plugin.conftest import CONFTEST, TESTS

Accept = Callable[..., Scenario]
KEY = "toy/a"
SETS = ("collected", "selected", "ran", "foreign", "results")


def expected(in_set: dict[str, bool], full: bool, has_subject: bool) -> str:
    """The decision about one accepted scenario: ``problem``, ``notice`` or nothing."""
    match in_set:
        case {"results": True}:
            return ""
        case {"ran": True}:
            return "notice"  # skipped, or failed
        case {"foreign": True} if not has_subject:
            return "problem"
        case {"foreign": False, "selected": True}:
            return "problem"  # it got lost
        case {"foreign": False, "collected": True}:
            return "notice" if full else ""  # deselected: by code, or by an option
    return "problem" if full else "notice"


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("has_subject", [True, False])
def test_the_table_of_decisions(full: bool, has_subject: bool) -> None:
    for values in itertools.product([True, False], repeat=len(SETS)):
        in_set = dict(zip(SETS, values, strict=True))
        sets = {name: [KEY] if present else [] for name, present in in_set.items()}
        coverage = Coverage(accepted=[KEY], subjects=["toy"] if has_subject else [], full=full, **sets)
        decision = decide(coverage)
        strict = decide(coverage._replace(strict=True))
        assert (*strict.problems, *strict.notices) == (*decision.problems, *decision.notices)
        assert bool(strict.problems) == bool(decision.problems or (in_set["ran"] and not in_set["results"]))
        kinds = ["problem" for _ in decision.problems] + ["notice" for _ in decision.notices]
        assert kinds == [kind for kind in [expected(in_set, full, has_subject)] if kind], (in_set, full, has_subject)
        assert all(
            " a " in sentence or " a:" in sentence or "a not" in sentence for part in decision for sentence in part
        )
        assert decide(coverage._replace(complete=False)) == Decision()


def test_a_candidate_needs_no_test() -> None:
    assert decide(Coverage(full=True)) == Decision()


def test_tests_that_a_conftest_removes_are_named(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.55)
    removal = """
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "scenario" not in item.name]
"""
    project.makeconftest(CONFTEST + removal)
    result = project.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [f"*{scenario.id} not judged: a plugin, a conftest.py or addopts deselected the tests*"]
    )


@pytest.mark.parametrize("arguments", [(), ("-k", "test_scenario"), ("test_model.py",), ("-n2",)])
def test_a_renamed_subject_is_an_error(project: pytest.Pytester, accept: Accept, arguments: tuple[str, ...]) -> None:
    scenario = accept(mean=0.55)
    (project.path / "fixtures" / "toy").rename(project.path / "fixtures" / "other")
    result = project.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [f"Scenario {scenario.id} is of subject 'other', and this run tests the model of 'toy'*"]
    )
    assert result.parseoutcomes()["errors"] == 1


TWO = CONFTEST.replace("def subject(**changes)", "def toy(**changes)").replace(
    "    return subject()", "    return toy(name='b')"
)
NAMED = CONFTEST.replace("return subject()", "return subject(name='a')")
UNTRAINED = NAMED.replace("torch.tensor(0.5)", "torch.tensor(5.0)")


@pytest.fixture
def two(project: pytest.Pytester, accept: Accept) -> pytest.Pytester:
    """Folders a and b with a subject each; a's model calls every image dark."""
    for name in ("a", "b"):
        accept(mean=0.55 if name == "a" else 0.6)
        (project.path / "fixtures" / "toy").rename(project.path / "fixtures" / name)
        folder = project.mkdir(name)
        (folder / "__init__.py").touch()
        (folder / "conftest.py").write_text(UNTRAINED if name == "a" else TWO)
        (folder / f"test_{name}.py").write_text(TESTS)
    project.makepyfile(test_model="")
    project.makeconftest("")
    return project


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_each_folder_has_its_own_subject(two: pytest.Pytester, workers: tuple[str, ...]) -> None:
    result = two.runpytest("-v", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    words = {
        (line.partition("::")[0].rpartition("/")[2], word)
        for line in result.outlines
        for word in ("PASSED", "FAILED")
        if "::test_" in line and word in line.split()
    }
    assert words == {("test_a.py", "FAILED"), ("test_b.py", "PASSED")}
    assert "not judged" not in result.stdout.str()


def test_the_scenarios_of_a_subject_that_is_left_out_are_an_error_unless_the_test_names_its_own(
    two: pytest.Pytester,
) -> None:
    result = two.runpytest("b")
    result.assert_outcomes(passed=2, errors=1)
    (two.path / "b" / "test_b.py").write_text(TESTS.replace("min_accuracy=0.9", "min_accuracy=0.9, only='b'"))
    alone = two.runpytest("b")
    assert alone.ret == pytest.ExitCode.OK
    alone.assert_outcomes(passed=2)


def test_parametrized_subjects_are_judged_each_on_its_own_scenarios(project: pytest.Pytester, accept: Accept) -> None:
    for name, mean in (("a", 0.55), ("b", 0.6)):
        accept(mean=mean)
        (project.path / "fixtures" / "toy").rename(project.path / "fixtures" / name)
    both = CONFTEST.replace('scope="session")', 'scope="session", params=["a", "b"])')
    project.makeconftest(
        both.replace("defuse_subject():", "defuse_subject(request):").replace(
            "return subject()", "return subject(name=request.param)"
        )
    )
    result = project.runpytest("--defuse-results=results.json")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=4, skipped=2)
    results = json.loads((project.path / "results.json").read_text())
    assert sorted(row["subject"] for row in results["scenarios"]) == ["a", "b"]
    assert sorted(row["subject"] for row in results["test_sets"]) == ["a", "b"]


def test_two_subjects_of_one_name_are_refused(two: pytest.Pytester) -> None:
    (two.path / "b" / "conftest.py").write_text(NAMED)
    result = two.runpytest()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["Two subjects of this run have the name 'a': give each its own name, *"])


COVERED = "import pytest\n@pytest.mark.defuse(only={!r})\ndef test_scenario(defuse_scenario): defuse_scenario.check()\n"


def test_an_accepted_scenario_that_no_test_covers_is_an_error_of_a_full_run(
    project: pytest.Pytester, accept: Accept
) -> None:
    first, second = sorted([accept(mean=0.55).id, accept(mean=0.6).id])
    project.makepyfile(test_model=COVERED.format(first))
    (project.mkdir("other") / "test_other.py").write_text("def test_nothing(): pass")
    named = f"no test covers {second}: *"
    for full in ((), (".",), (str(project.path),), ("other", "."), ("-n2",)):
        result = project.runpytest(*full)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert result.parseoutcomes() == {"passed": 2}
        result.stdout.fnmatch_lines([named])
    partial = (("test_model.py",), ("--ignore=other",), ("-k", "scenario or nothing"), ("-m", "not slow"), ("--lf",))
    for selection in (*partial, (f"test_model.py::test_scenario[{first}]",), ("--deselect=other",), ("-n2", "-k", "n")):
        result = project.runpytest(*selection)
        assert result.ret == pytest.ExitCode.OK, selection
        result.stdout.fnmatch_lines([f"{second} not judged: no selected test covers them"])
    quiet = project.runpytest("-q", "--no-summary")
    assert quiet.ret == pytest.ExitCode.TESTS_FAILED
    quiet.stdout.fnmatch_lines([named])


def test_testpaths_say_what_a_full_run_is(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    for name in ("tests", "more"):
        (project.mkdir(name) / f"test_{name}.py").write_text("def test_nothing(): pass")
    project.makeini("[pytest]\ntestpaths =\n    tests\n    more\n")
    for full in ((), ("tests", "more"), ("tests/", "./more")):
        result = project.runpytest(*full)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["no test covers *"])
    for partial in (("tests",), ("tests/test_tests.py", "more")):
        assert project.runpytest(*partial).ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("addopts", "partial"),
    [
        ("--ignore=build", "--ignore=other"),
        ("--deselect=build", "--deselect=other"),
        ("-m 'not slow'", "-mnot other"),
        ("-k test", "--lf"),
        ("test_model.py", "test_model.py::test_scenario"),
    ],
)
def test_the_addopts_of_the_project_say_what_a_full_run_is(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch, addopts: str, partial: str
) -> None:
    first, second = sorted([accept(mean=0.55).id, accept(mean=0.6).id])
    project.makepyfile(test_model=COVERED.format(first))
    project.makeini(f"[pytest]\naddopts = {addopts}\nmarkers =\n    slow\n    other\n")
    result = project.runpytest()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"no test covers {second}: *"])
    assert project.runpytest(partial).ret == pytest.ExitCode.OK
    monkeypatch.setenv("PYTEST_ADDOPTS", f"-p no:hypothesispytest '{partial}'")
    assert project.runpytest().ret == pytest.ExitCode.OK


def test_a_project_that_lost_its_tests_of_the_model_fails(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.55)
    project.makepyfile(test_model="def test_nothing(): pass")
    result = project.runpytest("-q")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"no test covers {scenario.id}: *"])
    assert project.runpytest("--collect-only").ret == pytest.ExitCode.OK
    scenario.yaml.write_text("nonsense: [")
    broken = project.runpytest("-q")
    assert broken.ret == pytest.ExitCode.TESTS_FAILED
    assert "scenario.yaml" in broken.stdout.str()
    assert project.runpytest("-q", "test_model.py").ret == pytest.ExitCode.OK


def test_a_skipped_test_is_named_and_passes(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept(mean=0.55)
    project.makepyfile(
        test_model="""
        import pytest
        @pytest.mark.skip
        def test_scenario(defuse_scenario): pass
        def test_accuracy(defuse_test_accuracy): pass
        """
    )
    result = project.runpytest()
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([f"{scenario.id} not judged: the tests were skipped, *"])


def test_an_unknown_name_in_only_is_refused(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    project.makepyfile(
        test_model="""
        import pytest
        def test_scenario(defuse_scenario): pass
        @pytest.mark.defuse(only=["bright", "typo"])
        def test_overall(defuse_overall): pass
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["defuse(only=...) names 'typo', which is neither the id, the label nor the subject *"])


def test_a_baseline_is_saved_by_a_run_that_passes_and_never_shrinks(project: pytest.Pytester, accept: Accept) -> None:
    first, second = sorted([accept(mean=0.55).id, accept(mean=0.6).id])
    file, save = project.path / "baseline.json", "--defuse-save-baseline=baseline.json"
    project.makepyfile(test_other="def test_nothing(): pass")
    assert project.runpytest(save).ret == pytest.ExitCode.OK
    whole = json.loads(file.read_text())

    def kept(*arguments: str) -> str:
        result = project.runpytest(save, *arguments)
        assert json.loads(file.read_text()) == whole
        return result.stdout.str()

    assert "not written" not in kept("-k", f"{first} or accuracy")
    assert "not written: no test evaluated a model" in kept("test_other.py")
    project.makeconftest(CONFTEST.replace("torch.tensor(0.5)", "torch.tensor(0.58)"))
    assert "baseline.json was not written: the run did not pass." in kept()
    assert "baseline.json was not written: the run did not pass." in kept("-x", "-q")
    partial = project.runpytest(save, "-k", second)
    assert partial.ret == pytest.ExitCode.OK
    now = json.loads(file.read_text())["subjects"]["toy"]
    before = whole["subjects"]["toy"]
    assert now["scenarios"][first] == before["scenarios"][first]
    assert now["test"] == before["test"]
    assert now["scenarios"][second]["confidences"] != before["scenarios"][second]["confidences"]


def test_an_interrupted_run_saves_no_baseline(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    project.makepyfile(test_z="def test_it(): raise KeyboardInterrupt")
    result = project.runpytest_inprocess("--defuse-save-baseline=baseline.json", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not (project.path / "baseline.json").exists()
    assert "baseline.json was not written: the run did not pass." in result.stdout.str()


def test_a_run_that_exits_with_0_before_its_end_fails_and_saves_no_baseline(
    project: pytest.Pytester, accept: Accept
) -> None:
    accept(mean=0.55)
    stop = "def test_stop(): pytest.exit('enough', returncode=0)\n\ndef test_accuracy"
    project.makepyfile(test_model=TESTS.replace("def test_accuracy", stop))
    result = project.runpytest("--defuse-save-baseline=baseline.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["1 tests of the model did not run, such as test_model.py::test_accuracy: *"])
    assert not (project.path / "baseline.json").exists()


def test_a_refused_correction_saves_no_baseline(project: pytest.Pytester, accept: Accept) -> None:
    """Its tests pass on the corrected model; the images of the shift set become wrong."""
    accept(mean=0.495)
    night = "TensorDataset(torch.full((40, 1, 8, 8), 126, dtype=torch.uint8), torch.zeros(40).long())"
    night = f"subject(shifts={{'night': {night}}})"
    project.makeconftest(CONFTEST.replace("return subject()", f"return {night}"))
    brief = (
        "import pytest\npytestmark = pytest.mark.defuse_correct(search='grid', lambdas=[0.5], epochs=1, rates=[2e-3])\n"
    )
    project.makepyfile(test_model=brief + TESTS)
    result = project.runpytest("--defuse-correct", "--defuse-save-baseline=baseline.json")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "baseline.json was not written: the run did not pass." in result.stdout.str()
    assert not (project.path / "baseline.json").exists()


def test_one_command_accepts_an_intended_drop(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    project.makepyfile(
        test_model="""
        import pytest
        @pytest.mark.defuse(max_drop=0.0)
        def test_scenario(defuse_scenario): defuse_scenario.check()
        """
    )
    project.makeini("[pytest]\ndefuse_baseline = baseline.json\n")
    accepting = ("--defuse-baseline=", "--defuse-first-run", "--defuse-save-baseline=baseline.json")
    assert project.runpytest(*accepting).ret == pytest.ExitCode.OK
    project.makeconftest(CONFTEST.replace("torch.tensor(0.5)", "torch.tensor(0.8)"))
    assert project.runpytest().ret == pytest.ExitCode.TESTS_FAILED
    assert project.runpytest(*accepting).ret == pytest.ExitCode.OK
    assert project.runpytest().ret == pytest.ExitCode.OK


def test_flips_of_equal_weights_are_nondeterminism(
    project: pytest.Pytester, accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that gives the fixed images the same logits, and 16 images of a scenario others."""
    accept(mean=0.55)
    darker = "images = images - float(os.environ.get('DARKER', 0)) * (len(images) == 16)\n        return self.head("
    project.makeconftest("import os\n" + CONFTEST.replace("return self.head(", darker))
    project.makepyfile(
        test_model="""
        import pytest
        @pytest.mark.defuse(max_drop=0.5, confidence=0.95)
        def test_scenario(defuse_scenario): defuse_scenario.check()
        """
    )
    both = ("--defuse-baseline=baseline.json", "--defuse-save-baseline=baseline.json")
    assert project.runpytest(*both, "--defuse-first-run").ret == pytest.ExitCode.OK
    same = project.runpytest(both[0])
    assert same.ret == pytest.ExitCode.OK
    same.stdout.fnmatch_lines(["the baseline is from the same model"])
    monkeypatch.setenv("DARKER", "0.2")
    other = project.runpytest(both[0])
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(
        ["*the baseline is from the same model, which now predicts another class for 16 of 16 images: it is not *"]
    )


def test_a_baseline_takes_no_drop_that_is_inconclusive_or_fails(project: pytest.Pytester, accept: Accept) -> None:
    """Drops that are each too small to tell would add up; a test that is expected to fail is no baseline either."""
    scenario = accept(mean=0.55)
    project.makepyfile(
        test_model="""
        import pytest

        @pytest.mark.xfail
        @pytest.mark.defuse(min_accuracy=0.5)
        def test_scenario(defuse_scenario): defuse_scenario.check()

        @pytest.mark.defuse(max_drop=0.0, confidence=0.95)
        def test_accuracy(defuse_test_accuracy): defuse_test_accuracy.check()
        """
    )
    save = ("--defuse-save-baseline=b.json", "--defuse-baseline=b.json", "--defuse-first-run")
    project.runpytest(*save).assert_outcomes(xpassed=1, passed=1)
    whole = json.loads((project.path / "b.json").read_text())
    project.makeconftest(CONFTEST.replace("torch.tensor(0.5)", "torch.tensor(0.615)"))
    result = project.runpytest(*save)
    result.assert_outcomes(xfailed=1, skipped=1)
    assert "not written: no verdict is PASS" in result.stdout.str()
    assert json.loads((project.path / "b.json").read_text()) == whole
    assert scenario.id in whole["subjects"]["toy"]["scenarios"]
