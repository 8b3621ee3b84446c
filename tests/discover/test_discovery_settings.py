import pytest

from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.errors import DefuseError


@pytest.mark.parametrize("name", ["rho", "confidence", "min_weight", "max_overlap", "min_reconstruction"])
@pytest.mark.parametrize("value", [1, 1.0, 3, 0])
def test_a_share_lies_between_0_and_1(name: str, value: float) -> None:
    with pytest.raises(DefuseError) as error:
        DiscoverySettings.of({name: value})
    assert str(error.value) == f"defuse_discover({name}={value!r}): give a number > 0 and < 1."


@pytest.mark.parametrize("name", ["budget", "draws", "cap", "restarts", "confirmations", "tiles", "candidates"])
def test_what_is_counted_is_a_whole_number_of_1_or_more(name: str) -> None:
    with pytest.raises(DefuseError, match=rf"defuse_discover\({name}=0\): give a whole number >= 1"):
        DiscoverySettings.of({name: 0})


def test_the_mode_of_the_papers_has_the_papers_values() -> None:
    paper = DiscoverySettings(mode="paper", draws=100)
    assert (paper.draws, paper.cap, paper.a, paper.b, paper.components) == (100, 100, 50, 50, 100)
    assert (paper.clustering, paper.restarts, paper.min_weight) == ("plain", 1, 0.01)
    assert DiscoverySettings(mode="gradient").cap == 10


def test_the_former_setting_backend_is_ignored_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"defuse_discover: backend has no effect: there is one implementation"):
        assert DiscoverySettings.of({"backend": "scikit-learn", "draws": 7}) == DiscoverySettings(draws=7)
