"""Gradient steps in latent space, for models that random draws hardly fool."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from pytest_defuse.discover.evaluator import Evaluator
from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.runtime.errors import DefuseError


@runtime_checkable
class Differentiable(Protocol):
    """A generator through which gradients flow."""

    def render(self, codes: Tensor) -> Tensor:
        """Float images in [0, 1], N x C x H x W, of latent codes N x d, before they become uint8."""


def ascend(evaluator: Evaluator, codes: Tensor, spread: Tensor, settings: DiscoverySettings) -> Tensor:
    """Move each code, float32 n x d, to where the judges are surer and the model is less so.

    With t the class that the judges read at the start, ``steps`` steps along the normalised gradient of
    mean_j log p_j(t) - softplus(m_t), m_t being the model's margin of t; together they are as long as a
    typical random displacement, ``noise`` in units of ``spread``. The random starts are the restarts.

    Raises:
        DefuseError: the generator has no ``render``.
    """
    generator, judges = evaluator.generator, evaluator.judges
    if not isinstance(generator, Differentiable):
        raise DefuseError(
            'defuse_discover(mode="gradient") needs a generator with a method render(codes) that returns float images '
            'through which gradients flow: give it one, or search in the mode "default".'
        )
    assert judges is not None
    length = settings.noise * codes.shape[1] ** 0.5 / settings.steps
    moved = []
    for z in codes.split(evaluator.compute.batch):
        classes, _ = judges.verdicts(generator.decode(z))
        for _ in range(settings.steps):
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                images = generator.render(z)
                target = classes.to(images.device)[:, None]
                sureness = torch.stack(
                    [judge.read(images).log_softmax(dim=1).gather(1, target) for judge in judges.panel]
                )
                logits = evaluator.model.read(images)
                others = logits.scatter(1, target, -torch.inf).max(dim=1, keepdim=True).values
                gain = sureness.mean(dim=0) - F.softplus(logits.gather(1, target) - others)
                (slope,) = torch.autograd.grad(gain.sum(), z)
            uphill = slope * spread
            z = z.detach() + length * spread * uphill / uphill.norm(dim=1, keepdim=True).clamp(min=1e-12)
        moved.append(z.detach())
    return torch.cat(moved)
