"""Gradient steps in latent space, for models that rarely fail on random draws."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pytest_defuse.discover.settings import DiscoverySettings
from pytest_defuse.discover.verdicts import Evaluator
from pytest_defuse.runtime.errors import DefuseError


def gradient_search(evaluator: Evaluator, codes: Tensor, std: Tensor, settings: DiscoverySettings) -> Tensor:
    """Move each code to where the judges are more confident and the model is less confident.

    Judges are reference classifiers that give a second opinion. Let t be the class that they see at the start. Each of
    ``steps`` steps follows the normalised gradient of mean_j log p_j(t) - softplus(m_t), where m_t is the model's logit
    of t minus its largest other logit. The steps together are as long as a typical random displacement, ``noise`` in
    units of ``std``.

    Args:
        codes: float32 n x d.
        std: float32 d, standard deviation of the training images' codes.

    Raises:
        DefuseError: the generator has no ``render``.
    """
    judges, render = evaluator.judges, getattr(evaluator.generator, "render", None)
    if render is None:
        raise DefuseError(
            'defuse_discover(mode="gradient") needs a generator with a method render(codes) that returns float images '
            'through which gradients flow: add the method, or use mode="default".'
        )
    assert judges is not None
    step_length = settings.noise * codes.shape[1] ** 0.5 / settings.steps
    moved = []
    for z in evaluator.compute.batches(codes):
        labels, _ = judges.labels(evaluator.generator.decode(z))
        for _ in range(settings.steps):
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                images = render(z)
                target = labels.to(images.device)[:, None]
                log_probabilities = torch.stack(
                    [judge.forward(images).log_softmax(dim=1).gather(1, target) for judge in judges.panel]
                )
                logits = evaluator.model.forward(images)
                others = logits.scatter(1, target, -torch.inf).max(dim=1, keepdim=True).values
                objective = log_probabilities.mean(dim=0) - F.softplus(logits.gather(1, target) - others)
                (gradient,) = torch.autograd.grad(objective.sum(), z)
            direction = gradient * std  # the gradient with respect to codes in units of std
            z = z.detach() + step_length * std * direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
        moved.append(z.detach())
    return torch.cat(moved)
