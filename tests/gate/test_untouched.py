"""No verb of the gate leaves a trace in the user's model or in the global random generators, also when it raises."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pytest_defuse.explain.explanation import explain
from pytest_defuse.gate.predictions import predict_scenarios, predict_test
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.scenarios.scenario import Scenario
from pytest_defuse.scenarios.store import Store
from pytest_defuse.subject.subject import Subject
from tests.scenarios.planting import plant, random_tiles

Verb = Callable[[Subject, Scenario], object]

VERBS: dict[str, Verb] = {
    "scenarios": lambda subject, scenario: predict_scenarios(subject, subject.classifier(), [scenario]),
    "test set": lambda subject, _: predict_test(subject, subject.classifier()),
    "failure modes": lambda subject, _: explain(subject, subject.classifier()),
}


class Drawing(nn.Module):
    """Draws random numbers in every forward pass, counts its calls in a buffer, and may break."""

    def __init__(self, breaks: bool) -> None:
        super().__init__()
        self.breaks = breaks
        self.register_buffer("calls", torch.zeros(()))
        self.head = nn.Linear(64, 10)
        self.head.bias.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        images = images + torch.rand(()) + random.random() + np.random.rand()
        if self.breaks:
            raise RuntimeError("out of memory")
        return self.head(images.flatten(1))


def traces(model: nn.Module) -> list[object]:
    """All that a verb could change."""
    return [
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        {name: value.tolist() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
    ]


@pytest.mark.parametrize("breaks", [False, True], ids=["fine", "raising"])
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_verb_leaves_no_trace(tmp_path: Path, verb: Verb, breaks: bool) -> None:
    scenario = plant(Store(tmp_path / "digits"), random_tiles(), random_tiles(seed=1), status="accepted", label="3")
    images = TensorDataset(torch.from_numpy(random_tiles(40)), torch.arange(40) % 10)
    model = Drawing(breaks)
    subject = Subject("digits", model, [*"0123456789"], images, images, shifts={"more": images})
    before = traces(model)
    if breaks:
        with pytest.raises(DefuseError, match="out of memory"):
            verb(subject, scenario)
    else:
        verb(subject, scenario)
    assert traces(model) == before
