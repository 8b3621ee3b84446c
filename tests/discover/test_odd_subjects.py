"""Models and data as users bring them: each works, or is refused in one sentence."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import Normalize

from pytest_defuse import Subject
from pytest_defuse.discover.discovery import discover
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.explain import explain
from pytest_defuse.runtime.errors import DefuseError
from tests.discover.stubs import Pixels

BRIEF = DiscoverySettings(budget=400, min_reconstruction=0.01)


class Brightness(nn.Module):
    """Tells dark from bright; ``after`` changes its logits."""

    def __init__(self, after: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.after = after
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-50.0], [50.0]]))
            self.head.bias.copy_(torch.tensor([22.0, -22.0]))

    def forward(self, x: Tensor) -> Any:
        return self.after(self.head(x.mean(dim=(1, 2, 3))[:, None]))


class Extra(Brightness):
    """A model with state that is no tensor."""

    def get_extra_state(self) -> dict[str, object]:
        return {"version": 3, "names": ["a", "b"]}

    def set_extra_state(self, state: dict[str, object]) -> None: ...


def scripted() -> nn.Module:
    flat = nn.Sequential(nn.AvgPool2d(6), nn.Flatten(), nn.Linear(1, 2))
    flat[2].load_state_dict(Brightness().head.state_dict())
    return flat


def pairs(count: int) -> list[tuple[Tensor, int]]:
    numbers = torch.Generator().manual_seed(count)
    return [(0.3 * torch.rand(1, 6, 6, generator=numbers) + 0.6 * (n % 2), n % 2) for n in range(count)]


def dicts() -> list[dict[str, Any]]:
    return [{"image": image, "label": label} for image, label in pairs(40)]


def triples() -> list[tuple[Any, ...]]:
    return [(*pair, {"id": number}) for number, pair in enumerate(pairs(40))]


def subject(**changes: Any) -> Subject:
    parts: dict[str, Any] = {"train": pairs(40), "test": pairs(30), "judges": [Brightness()], "generator": Pixels(6)}
    return Subject(**{"name": "odd", "model": Brightness(), "classes": ["dark", "bright"], **parts, **changes})


def in_place(images: Tensor) -> Tensor:
    return images.mul_(0.5).mul_(2)


class Failing:
    """A data set whose files are gone."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return Path(f"/nowhere/{index}.png").read_bytes()


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"model": torch.jit.script(scripted())}, "default"),
        ({"model": torch.jit.trace(scripted().eval(), torch.zeros(1, 1, 6, 6))}, "default"),
        ({"model": torch.jit.freeze(torch.jit.script(scripted().eval()))}, "default"),
        ({"model": torch.jit.script(scripted())}, "gradient"),
        ({"judges": [torch.jit.script(scripted())]}, "default"),
        ({"model": Extra()}, "default"),
        ({"normalize": in_place}, "default"),
        ({"normalize": in_place}, "gradient"),
        ({"normalize": lambda x: x.double()}, "default"),
    ],
    ids=["script", "trace", "frozen", "script-gradient", "judge", "extra", "in-place", "in-place-gradient", "double"],
)
def test_these_subjects_work(tmp_path: Path, changes: dict[str, Any], mode: str) -> None:
    odd = subject(**changes)
    before = {name: copy.deepcopy(value) for name, value in odd.model.state_dict().items()}
    found, plain = (
        discover(s, BRIEF.replace(mode=mode), cache=tmp_path / str(n)) for n, s in enumerate((odd, subject()))
    )
    assert found.accuracy == plain.accuracy == 1
    assert len(odd.classifier().identity.fingerprint) == 64
    after = odd.model.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["cat", "dog", "cat"]}, r"^Subject\(classes=...\) has 'cat' more than once"),
        ({"normalize": (0.5, 0.5)}, r"^Subject\(normalize=...\) is a tuple: give a function"),
        ({"normalize": lambda x: None}, r"of the model of subject 'odd' returned a NoneType for images of shape"),
        ({"normalize": lambda x: x.numpy()}, r"of the model of subject 'odd' returned a ndarray for images of shape"),
        ({"normalize": lambda x: x[:1]}, r"returned shape \(1, 1, 6, 6\) for images of shape \(.*one row for each"),
        ({"normalize": lambda x: x.sum()}, r"returned shape \(\) for images of shape"),
        (
            {"normalize": lambda x: x.missing},
            r"normalize=...\) of the model of subject 'odd' fails on images of shape",
        ),
        ({"normalize": Normalize([0.5] * 3, [0.5] * 3)}, r"normalize=...\) of the model of subject 'odd' fails on"),
        (
            {"normalize": lambda x: x.flatten(1)},
            r"subject 'odd' fails on torch.float32 input of shape \(\d+, 36\), the output of Subject\(normalize",
        ),
        ({"model": nn.Sequential(nn.Conv2d(3, 2, 6), nn.Flatten())}, r"odd' fails on torch.float32 input of shape \("),
        ({"model": Brightness(lambda y: y * torch.nan)}, "returned NaN or infinite logits for 2 of 2 images"),
        ({"model": Brightness(lambda y: y[:, :1])}, r"returned shape \(\d+, 1\) for 2 classes"),
        ({"model": Brightness(lambda y: {"logits": y})}, "returned a dict: it must return its logits only"),
        ({"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(2))}, "cannot be copied to cpu .* load its weights first"),
        ({"model": Brightness().to("meta")}, "cannot be copied to cpu .* load its weights first"),
        ({"train": dicts()}, r"^train\[0\] is not an .* pair but a dict with 'image', 'label': wrap the data set"),
        (
            {"train": triples()},
            r"^train\[0\] is not an \(image, class index\) pair but a tuple of 3: wrap the data set",
        ),
        ({"test": triples()}, r"^test\[0\] is not an \(image, class index\) pair but a tuple of 3"),
        ({"validation": dicts()}, r"^validation\[0\] is not an \(image, class index\) pair but a dict with 'image'"),
        (
            {"train": DataLoader(dicts(), batch_size=8)},
            r"^train\[0\] is not an .* pair but a dict with 'image', 'label'",
        ),
        ({"train": Failing()}, r"^train\[0\] cannot be read \(FileNotFoundError: .*0\.png'\): fix the data set"),
        ({"train": None}, r"^Subject\(train=...\) is a NoneType whose length cannot be read"),
        ({"generator": object()}, r"^Subject\(generator=...\) fails on 2 training images \(AttributeError: .*'encode'"),
    ],
)
def test_these_subjects_are_refused_in_a_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DefuseError, match=message) as refused:
        discover(subject(**changes), BRIEF, cache=tmp_path)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_failure_modes_need_a_network_with_layers() -> None:
    odd = subject(model=torch.jit.script(scripted()))
    with pytest.raises(DefuseError, match=r"is TorchScript, whose layers cannot be read: .*feature_network=...\)\.$"):
        explain(odd, odd.classifier())
    assert explain(subject(model=odd.model, feature_network=Brightness()), odd.classifier()).failed.sum() == 0
