"""Property tests on new images from a scenario's region."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase
from torch import Tensor

from pytest_defuse.discover.generator import BetaVAE, GeneratorSettings, TrainedVAE
from pytest_defuse.runtime.cache import write_tensors
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.strategies import offsets_inside, region_images
from tests.examples import fewer_examples
from tests.scenarios.planting import machine_of, plant, random_tiles

MEAN = [0.5, -1.0, 0.25]
COVARIANCE = [[1.0, 0.3, 0.0], [0.3, 0.5, 0.0], [0.0, 0.0, 2.0]]


@pytest.fixture(scope="module")
def generator() -> TrainedVAE:
    """An untrained generator: its images mean nothing, but they differ."""
    torch.manual_seed(0)
    network = BetaVAE((1, 8, 8), GeneratorSettings(latent_dim=3))
    network.decoder[-1].weight.data *= 20
    return TrainedVAE(network, "cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, generator: TrainedVAE) -> Path:
    """A repository whose cache contains the generator, a damaged file and another generator."""
    root = tmp_path_factory.mktemp("project")
    (root / "pytest.ini").write_text("[pytest]\n")
    cache = root / ".defuse_cache"
    cache.mkdir()
    (cache / "generator-0.safetensors").write_bytes(b"damaged")
    for name, network in (("1", BetaVAE((1, 8, 8), GeneratorSettings(latent_dim=5))), ("2", generator.network)):
        write_tensors(network.state_dict(), cache / f"generator-{name}.safetensors")
    return root


@pytest.fixture(scope="module")
def scenario(project: Path, generator: TrainedVAE) -> Scenario:
    region = {"generator": generator.hash, "weight": 0.1, "tau": 0.5, "mean": MEAN, "covariance": COVARIANCE}
    store = Store(project / "fixtures" / "digits")
    return plant(store, random_tiles(seed=1), random_tiles(seed=2), machine=machine_of(region=region))


@pytest.fixture(scope="module")
def images(project: Path, scenario: Scenario) -> st.SearchStrategy[Tensor]:
    return region_images(scenario.id, store=project / "fixtures", cache=project / ".defuse_cache")


@fewer_examples(30)
@given(data=st.data())
def test_images_have_the_format_that_the_model_reads(images: st.SearchStrategy[Tensor], data: st.DataObject) -> None:
    image = data.draw(images)
    assert image.shape == (1, 8, 8)
    assert image.dtype == torch.uint8


def test_the_simplest_image_is_that_of_the_mean(images: st.SearchStrategy[Tensor], generator: TrainedVAE) -> None:
    simplest = find(images, lambda _: True, settings=settings(database=None))
    assert torch.equal(simplest, generator.decode(torch.tensor([MEAN]))[0])


def test_a_failure_shrinks_toward_the_mean(images: st.SearchStrategy[Tensor], generator: TrainedVAE) -> None:
    mean = generator.decode(torch.tensor([MEAN]))[0]

    def difference(image: Tensor) -> float:
        return float((image.float() - mean.float()).abs().mean())

    differences: list[float] = []

    def differs(image: Tensor) -> bool:
        differences.append(difference(image))
        return differences[-1] > 2

    shrunk = find(images, differs, settings=settings(database=None))
    assert len(set(differences)) > 5
    assert 2 < difference(shrunk) < max(differences) / 2


@pytest.mark.slow
def test_a_failure_is_replayed(images: st.SearchStrategy[Tensor]) -> None:
    database = InMemoryExampleDatabase()
    first: list[bytes] = []
    second: list[bytes] = []

    def fail(seen: list[bytes]) -> None:
        @settings(database=database, derandomize=False, max_examples=50)
        @given(images)
        def test(image: Tensor) -> None:
            seen.append(image.numpy().tobytes())
            assert image.float().mean() < 0

        with pytest.raises(AssertionError):
            test()

    fail(first)
    fail(second)
    assert second[0] == first[-1]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_draws_stay_in_the_inner_half_of_the_region(floats: list[float]) -> None:
    offsets = offsets_inside(np.array(floats))
    assert np.isfinite(offsets).all()
    representable = np.abs(floats) >= 1e-300  # smaller ones can be rounded to zero
    assert np.array_equal(np.sign(offsets)[representable], np.sign(floats)[representable])
    # Half of all standard normal vectors of this dimension are shorter, by a sample and not by the formula.
    lengths = np.linalg.norm(np.random.default_rng(0).standard_normal((2000, len(floats))), axis=1)
    assert np.linalg.norm(offsets) <= np.quantile(lengths, 0.55)


def test_an_unknown_scenario_is_an_error(project: Path, scenario: Scenario) -> None:
    with pytest.raises(DefuseError, match=r"There is no scenario '3-as-5-000000' in .*pytest-defuse list shows"):
        find(region_images("3-as-5-000000", store=project / "fixtures", cache=project), lambda _: True)


def test_a_scenario_without_a_region_is_an_error(tmp_path: Path) -> None:
    planted = plant(Store(tmp_path / "digits"), random_tiles(seed=3), random_tiles(seed=4))
    with pytest.raises(DefuseError, match=re.escape(f"{planted.folder} has no region to draw from")):
        find(region_images(planted.id, store=tmp_path, cache=tmp_path), lambda _: True)


def test_a_missing_generator_is_an_error(project: Path, scenario: Scenario, tmp_path: Path) -> None:
    with pytest.raises(DefuseError, match=r"is not in .*: run pytest --defuse-discover .*, or copy generator-\*"):
        find(region_images(scenario.id, store=project / "fixtures", cache=tmp_path), lambda _: True)


@pytest.mark.slow
def test_folders_come_from_the_ini_file_beside_the_test(
    pytester: pytest.Pytester, project: Path, scenario: Scenario
) -> None:
    pytester.makeini(f"[pytest]\ndefuse_store = {project / 'fixtures'}\ndefuse_cache = {project / '.defuse_cache'}")
    pytester.makepyfile(
        f"""
        from hypothesis import given
        from pytest_defuse.strategies import region_images

        @given(image=region_images("{scenario.id}"))
        def test_draws(image):
            assert image.shape == (1, 8, 8)

        @given(image=region_images("{scenario.id}"))
        def test_fails(image):
            assert image.sum() < 0

        @given(image=region_images("9-as-9-000000"))
        def test_unknown(image):
            pass
        """
    )
    elsewhere = pytester.mkdir("elsewhere")
    start = f"import os, pytest; os.chdir({str(elsewhere)!r}); pytest.main(['-q', '..'])"
    result = pytester.run(sys.executable, "-c", start)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*image of *, 0.00 standard deviations from the region's mean*"])
    result.stdout.fnmatch_lines(["There is no scenario '9-as-9-000000' in *"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
