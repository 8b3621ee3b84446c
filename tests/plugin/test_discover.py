"""--defuse-discover: candidates in the store, progress on the way, nothing without the option."""

import pytest

from pytest_defuse.report.results_file import load_results
from tests.plugin.conftest import tree

SETTINGS = """
import pytest

@pytest.mark.defuse_discover(generator_steps=300, latent=4, budget=2000, tiles=16, confirmations=64, min_failures=10)
def test_discovery(defuse_discovery):
    assert defuse_discovery.reconstruction_accuracy > 0.9 * defuse_discovery.accuracy
"""


def second_opinions(project: pytest.Pytester) -> None:
    """Give the toy judges that see bright images from a mean of 0.4 on, so that it fails between 0.4 and 0.5."""
    conftest = project.path / "conftest.py"
    text = conftest.read_text().replace(
        "return subject()",
        """judges = []
    for threshold in (0.39, 0.4):
        judge = Threshold()
        judge.scale.data.fill_(100.0)
        judge.threshold.data.fill_(threshold)
        judges.append(judge)
    train = images(400, 0)
    between = (torch.linspace(0.42, 0.6, 400)[:, None, None, None] * 255).expand(400, 1, 8, 8).to(torch.uint8)
    train.tensors = (torch.cat([train.tensors[0], between]), torch.cat([train.tensors[1], torch.ones(400).long()]))
    return subject(train=train, judges=judges)""",
    )
    conftest.write_text(text)


def test_without_the_option_it_is_skipped(project: pytest.Pytester) -> None:
    project.makepyfile(test_model=SETTINGS)
    before = tree(project.path)
    result = project.runpytest("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*discovery runs with --defuse-discover*"])
    assert tree(project.path) == before


@pytest.mark.slow
def test_candidates_are_written_and_a_second_run_changes_nothing(project: pytest.Pytester) -> None:
    second_opinions(project)
    project.makepyfile(test_model=SETTINGS)
    result = project.runpytest("--defuse-discover", "--defuse-results=.reports/results.json")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*defuse: training the generator*", "discovery of toy: *", "bright-as-dark-*bright*dark*"]
    )
    (found,) = load_results(project.path / ".reports" / "results.json", project.path).discoveries
    assert found.latent_map is not None
    shown = len(found.latent_map.labels) + found.latent_map.failures + len(found.latent_map.candidates)
    assert [len(points) for points in found.latent_map.projections.values()] == [shown, shown]
    assert all(c.novelty and set(c.novelty.labels) == {"bright"} for c in found.new)
    first = tree(project.path)
    candidates = [name for name in first if name.endswith("scenario.yaml")]
    assert candidates
    result = project.runpytest("--defuse-discover")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["already in the store: bright-as-dark-*"])
    assert "training the generator" not in result.stdout.str()
    assert tree(project.path) == first
    quiet = project.runpytest("--defuse-discover", "-q")
    assert "searching" not in quiet.stdout.str() + quiet.stderr.str()


def test_it_needs_no_test_of_the_users(project: pytest.Pytester) -> None:
    result = project.runpytest("--defuse-discover", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*::defuse-discover"])
    (project.path / "test_model.py").unlink()
    result = project.runpytest("--defuse-discover", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["*defuse-discover"])


def test_a_wrong_setting(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        @pytest.mark.defuse_discover(drawz=3)
        def test_discovery(defuse_discovery): pass
        """
    )
    result = project.runpytest("--defuse-discover")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["defuse_discover has no setting 'drawz' (did you mean 'draws'?): it has mode, *"])


BLACK = """
class Black:
    # A generator that decodes every code as a black image.
    hash = "0" * 64

    def encode(self, pixels):
        means = pixels.float().mean(dim=(1, 2, 3))[:, None]
        return means, torch.ones_like(means)

    def decode(self, codes):
        return torch.zeros(len(codes), 1, 8, 8, dtype=torch.uint8)
"""


def test_a_generator_that_cannot_rebuild_the_images(project: pytest.Pytester) -> None:
    second_opinions(project)
    conftest = project.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("judges=judges)", "judges=judges, generator=Black())") + BLACK)
    project.makepyfile(test_model=SETTINGS)
    result = project.runpytest("--defuse-discover")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["The generator does not reconstruct the images well enough: *, the model is correct on *% of the training *"]
    )
