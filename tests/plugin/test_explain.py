"""Failure modes through pytest."""

import shutil

import pytest

from pytest_defuse.cli import main
from pytest_defuse.scenarios.store import Store

CONFTEST = """
import pytest, pytest_defuse, torch
from torch.utils.data import TensorDataset

def images(count, seed):
    # Class 1 is bright up left; a quarter of all images has a white mark in the lower right corner.
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    pixels = torch.randint(40, (count, 1, 8, 8), generator=random)
    pixels[:, :, :4, :4] += (labels * 200)[:, None, None, None]
    pixels[torch.rand(count, generator=random) < 0.25, :, 5:8, 5:8] = 255
    return TensorDataset(pixels.to(torch.uint8), labels)

class Spots(torch.nn.Module):
    # Right but for the weight of the lower right corner, which must not count.
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(4, 2)
        torch.nn.init.zeros_(self.head.bias)
        self.head.weight.data = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, -4.0]])

    def forward(self, images):
        return self.head(torch.nn.functional.avg_pool2d(images, 4).flatten(1))

@pytest.fixture(scope="session")
def defuse_subject():
    return pytest_defuse.Subject(name="spots", model=Spots(), classes=["dark", "bright"], train=images(2560, 1),
                                 test=images(800, 0), checkpoint="spots.pt")
"""

CORRECTED = """
def corrected(model):
    load_model(model, "spots.safetensors")
    return model
"""

TESTS = """
import pytest

@pytest.mark.defuse_explain(depth=1)
def test_failure_modes(defuse_failure_modes):
    assert not defuse_failure_modes.above(2.0, coverage=0.2)
"""

GATE = """
import pytest

@pytest.mark.defuse(max_error_rate=0.2, max_increase=0.05)
@pytest.mark.defuse_correct(rates=[0.1], augment="none")
def test_scenario(defuse_scenario):
    defuse_scenario.check()
"""


@pytest.fixture
def project(project: pytest.Pytester) -> pytest.Pytester:
    project.makeconftest(CONFTEST)
    project.makepyfile(test_model=TESTS)
    return project


@pytest.mark.parametrize(
    "workers", [(), ("-n0",), pytest.param(("-n1",), marks=pytest.mark.slow)], ids=["plain", "n0", "n1"]
)
def test_a_test_says_that_there_is_no_failure_mode_above_twice_the_base_rate(
    project: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    result = project.runpytest("-k", "failure_modes", *workers)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*label bright*feature 3 > *"])
    result.stdout.fnmatch_lines(["*failure modes of spots: 2 in 2 groups; 2 groups with too few failures*"])
    assert not (project.path / "fixtures").exists()


def test_a_test_without_enough_failures_does_not_pass(project: pytest.Pytester) -> None:
    project.makeconftest(CONFTEST.replace("test=images(800, 0)", "test=images(60, 0)"))
    result = project.runpytest("-k", "failure_modes", "-rs")
    assert "passed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(["*Failure modes of subject 'spots' cannot be tested: the model is wrong on *"])


def test_a_full_store_is_noticed_before_the_work(project: pytest.Pytester) -> None:
    project.runpytest("--defuse-discover", "-k", "failure_modes")
    path = project.path / "fixtures" / "spots" / "store.yaml"
    path.write_text(path.read_text().replace("scenarios: 100", "scenarios: 1"))
    result = project.runpytest("--defuse-discover", "-k", "failure_modes")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*store.yaml: the store has 1 scenarios, and its budgets.scenarios is 1: *"])
    assert "computing features" not in result.stdout.str()


def test_results_alone_hold_the_figures_of_the_page(project: pytest.Pytester) -> None:
    project.runpytest("-k", "failure_modes", "--defuse-results=results.json").assert_outcomes(failed=1)
    assert main(["report", "results.json", "--html", "report.html"]) == 0
    assert (project.path / "report.html").read_text().count('alt="images of feature') == 4


@pytest.mark.slow
def test_a_failure_mode_goes_through_the_whole_loop(project: pytest.Pytester) -> None:
    store = Store(project.path / "fixtures" / "spots")
    project.makepyfile(test_gate=GATE)
    # If only a test of failure modes is selected, no other discovery runs.
    result = project.runpytest("--defuse-discover", "-k", "failure_modes")
    result.assert_outcomes(failed=1)
    candidates = store.scenarios("candidate")
    assert {scenario.record.method for scenario in candidates} == {"barlow"}
    assert main(["label", candidates[0].id, "--label", "bright"]) == 0
    result = project.runpytest("test_gate.py")
    result.assert_outcomes(failed=1)
    result = project.runpytest("--defuse-correct", "test_gate.py")
    result.assert_outcomes(passed=1)
    shutil.move(project.path / "spots.defused.safetensors", project.path / "spots.safetensors")
    project.makeconftest(
        CONFTEST.replace("def images", "from safetensors.torch import load_model\n\ndef images").replace(
            "model=Spots()", "model=corrected(Spots())"
        )
        + CORRECTED
    )
    project.runpytest("test_gate.py").assert_outcomes(passed=1)


def test_a_wrong_setting_is_a_sentence(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_model="""
        import pytest
        @pytest.mark.defuse_explain(depth=9)
        def test_failure_modes(defuse_failure_modes): ...
        """
    )
    result = project.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["defuse_explain(depth=9): give a whole number from 1 to 3."])
    result.stdout.no_fnmatch_line("*Traceback*")
