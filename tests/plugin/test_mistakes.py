"""Bad input gets one clear sentence, and no traceback from inside the plugin."""

from collections.abc import Callable

import pytest

from pytest_defuse.scenarios.scenario import Scenario
from tests.plugin.conftest import CONFTEST, TESTS

Accept = Callable[..., Scenario]


def says(result: pytest.RunResult, *lines: str) -> None:
    """The run failed with these lines and shows none of the plugin's own code."""
    assert result.ret != 0
    result.stdout.fnmatch_lines(list(lines))
    for inside in ("pytest_defuse/", "pytest_defuse\\", "Traceback"):
        assert inside not in result.stdout.str()


def test_no_subject(project: pytest.Pytester) -> None:
    project.makeconftest("")
    says(
        project.runpytest(),
        "There is no model to test: in conftest.py, write a session fixture defuse_subject that returns*",
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ('classes=["dark", "light", "bright"]', "*returned shape (*, 2) for 3 classes*: its logits must be N x 3*"),
        ('classes=["dark"]', "*classes=...) must have at least two names*"),
        ('name="a/b"', "*name='a/b') becomes a folder*"),
        ("test=images(0, 1)", "*test=...) is empty*"),
        ("test=[(torch.zeros(1, 8, 8), 7)]", "test?0? has label 7, but a label is an index into the 2 classes*"),
        (
            "test=[(torch.zeros(1, 8, 8), 0), (torch.zeros(3, 9, 8), 1)]",
            "test?1? is 8 x 9 RGB but test?0? is 8 x 8 grey: resize*",
        ),
        ("test=[(torch.ones(1, 8, 8) * 3, 0)]", "test?0? has values from 3 to 3 outside ?0, 1?*normalize*"),
        ("model=torch.nn.Flatten()", "*returned shape (*, 64) for 2 classes*"),
        (
            "model=(net := Threshold(), net.scale.data.fill_(float('nan')))[0]",
            "*returned NaN or infinite logits for 200 of 200*",
        ),
    ],
)
def test_a_wrong_subject(project: pytest.Pytester, changes: str, sentence: str) -> None:
    project.makeconftest(CONFTEST.replace("return subject()", f"return subject({changes})"))
    project.makepyfile(test_model="def test_accuracy(defuse_test_accuracy): pass")
    says(project.runpytest(), sentence)


def test_a_typo_in_the_yaml(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept()
    scenario.yaml.write_text(scenario.yaml.read_text().replace("status:", "statsu:"))
    result = project.runpytest()
    says(result, "*scenario.yaml:*statsu: is not a known key*")
    result.stdout.fnmatch_lines(["*scenario.yaml:2: status: is missing*"])


def test_a_label_that_is_no_class(project: pytest.Pytester, accept: Accept) -> None:
    scenario = accept()
    scenario.yaml.write_text(scenario.yaml.read_text().replace('label: "bright"', "label: brihgt", 1))
    says(project.runpytest(), "*scenario.yaml:5: label: 'brihgt' is not one of the classes dark, bright.")


def test_missing_sheet(project: pytest.Pytester, accept: Accept) -> None:
    accept().sheet_file("held_out").unlink()
    says(project.runpytest(), "*held_out.png is missing: restore it from git*")


def test_sheet_of_another_size(project: pytest.Pytester, accept: Accept) -> None:
    accept()
    project.makeconftest(CONFTEST.replace("1, 8, 8", "1, 9, 9"))
    says(project.runpytest(), "*held_out.png has images of 8 x 8 grey, but the test set*is 9 x 9 grey*")


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        (
            "defuse(min_acuracy=0.9)",
            "*defuse has no setting 'min_acuracy' (did you mean 'min_accuracy'?): it has min_accuracy, *",
        ),
        ("defuse(min_accuracy=90)", "*defuse(min_accuracy=90): give a number from 0 to 1."),
        ("defuse(0.9)", "*@pytest.mark.defuse accepts only keyword arguments*"),
    ],
)
def test_a_wrong_bound(project: pytest.Pytester, accept: Accept, marker: str, sentence: str) -> None:
    accept()
    project.makepyfile(test_model=TESTS.replace("defuse(min_accuracy=0.9)", marker))
    says(project.runpytest(), sentence)


def test_a_device_that_is_not_there(project: pytest.Pytester, accept: Accept) -> None:
    accept()
    says(project.runpytest("--defuse-device=cuda:7"), "--defuse-device=cuda:7 cannot be used*")


def test_a_report_that_cannot_be_written(project: pytest.Pytester, accept: Accept) -> None:
    accept(mean=0.55)
    (project.path / "folder").mkdir()
    result = project.runpytest("--defuse-report=folder")
    result.assert_outcomes(passed=2)
    says(result, "*folder cannot be written*")
