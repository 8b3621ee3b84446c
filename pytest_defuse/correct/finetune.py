"""Finetuning: one copy of the model, trained on training and scenario images together, epoch by epoch."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from pytest_defuse.correct.augment import mild
from pytest_defuse.correct.material import Material
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.files import replace_file
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject

State = dict[str, Any]
"""A model's state dict, on the CPU."""


class Finetuning:
    """One trial on its way: F = L(D) + weight * CE(D_f) (Defuse, equation 5).

    Random numbers belong to (seed, epoch) and (seed, step): all trials see the same training images in the same
    order, and a trial that is resumed ends with the weights of one that never stopped. After every epoch the
    state is on disk; one that is there already is taken up.

    Args:
        weight: lambda.
        rate: learning rate.
        folder: where states are kept.

    Raises:
        DefuseError: no parameter may change.
    """

    def __init__(
        self,
        subject: Subject,
        material: Material,
        settings: CorrectionSettings,
        weight: float,
        rate: float,
        *,
        seed: int,
        device: torch.device | str,
        folder: Path,
    ) -> None:
        self.subject, self.settings, self.seed, self.device = subject, settings, seed, device
        tiles = list(material.tiles.values())
        self.train = material.train
        self.tiles = LabelledImages(
            *(torch.cat(part) for part in zip(*((t.pixels, t.labels) for t in tiles), strict=True))
        )
        self.sizes = torch.tensor([len(part) for part in tiles])
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.weight, self.rate, self.epochs = weight, rate, 0
        self.steps = steps_of(material, settings)
        self.folder = folder
        self.model = trainable_copy(subject, settings).to(device)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # Adam's steps are smaller than what 16 bits tell apart: such weights are trained as float32 masters.
        self.masters = [
            (p, p if p.dtype in (torch.float32, torch.float64) else p.detach().float().requires_grad_())
            for p in parameters
        ]
        self.optimizer = settings.make_optimizer([master for _, master in self.masters], rate)
        self._old = plain_copy(subject.model).to(device).eval() if settings.distill else None
        self._resume()

    def advance(self, on_step: Callable[[str], None]) -> None:
        """Run one epoch; ``on_step`` is told of every step.

        Raises:
            DefuseError: the loss is no number any more.
        """
        with seeded(self.seed + self.epochs):
            self._training_mode()
            for loss in self._epoch():
                on_step(f"lambda {self.weight:g}, epoch {self.epochs + 1}, loss {loss:.3f}")
        self.epochs += 1
        state = {name: _on_cpu(value) for name, value in self.model.state_dict().items()}
        progress = {
            "epochs": self.epochs,
            "optimizer": self.optimizer.state_dict(),
            "masters": [master.detach() for _, master in self.masters],
        }
        weights = _file(self.folder, self.weight, self.rate, self.epochs)
        # The weights first: whoever finds the progress finds them too.
        replace_file(weights, lambda temporary: torch.save(state, temporary))
        replace_file(self._progress_file, lambda temporary: torch.save(progress, temporary))

    def _epoch(self) -> Iterator[float]:
        order = torch.randperm(len(self.train))
        # Batches of even size: batch normalisation cannot train on a single image that is left over.
        for position, chosen in enumerate(order.tensor_split(self.steps)):
            step = self.epochs * self.steps + position
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.rate_at(self.rate, step / (self.settings.epochs * self.steps))
            self.model.zero_grad(set_to_none=True)
            torch.manual_seed(self.seed + 1_000_003 * (step + 1))
            loss = sum(self._backward(part) for part in self._losses(chosen, step))
            if loss != loss:
                raise DefuseError(
                    f"Finetuning with lambda {self.weight:g} and rate {self.rate:g} lost its numbers (the loss is NaN "
                    f"at step {step + 1}): give defuse_correct(rates=...) a smaller one, or check loss and normalize."
                )
            self._update()
            yield loss

    def _losses(self, chosen: Tensor, step: int) -> Iterator[Tensor]:
        """The parts of F for one step, each to be differentiated before the next is computed."""
        settings = self.settings
        if settings.train_step is not None:
            yield settings.train_step(self.model, step)
            chosen = chosen[:0]
        # Training images come first, so that they are augmented alike in every trial.
        batch, tiles = self._fed(self.train[chosen]), self._scenario_batch()
        parts = _parts(len(batch[0]), len(tiles[0]), settings.at_once)
        for (images, labels), (mixed, shown, others, shares) in zip(
            _pieces(batch, parts), _pieces(tiles, parts), strict=True
        ):
            if not len(images) + len(mixed):
                continue
            logits = self._logits(self.model, torch.cat([images, mixed]))
            loss = logits.new_zeros(())
            if len(images):
                own = (settings.loss or F.cross_entropy)(logits[: len(images)], labels)
                loss = loss + len(images) / len(batch[0]) * (own + self._distilled(logits, images, labels))
            if len(mixed):
                wrong = shares * F.cross_entropy(logits[len(images) :], shown, reduction="none")
                wrong = wrong + (1 - shares) * F.cross_entropy(logits[len(images) :], others, reduction="none")
                loss = loss + self.weight * wrong.sum() / len(tiles[0])
            yield loss

    def _distilled(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor | float:
        """How far the new model's answers are from the old one's where that was right."""
        if self._old is None:
            return 0.0
        with torch.no_grad():
            old = self._logits(self._old, images)
        gap = F.kl_div(
            logits[: len(images)].log_softmax(dim=1), old.log_softmax(dim=1), log_target=True, reduction="none"
        )
        return self.settings.distill * (gap.sum(dim=1) * (old.argmax(dim=1) == labels)).mean()

    def _scenario_batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Correction tiles, every scenario as often as any other; none for the control.

        Some are mixed with a training image (mixup, Zhang et al. 2018): with their label, that image's and
        the tile's share of the pixels. The texture of a generator is then no sign of the scenarios' labels.
        """
        count = self.settings.scenario_batch if self.weight else 0
        scenarios = torch.randint(len(self.sizes), (count,))
        places = (torch.rand(count) * self.sizes[scenarios]).long()
        tiles, labels = self._fed(self.tiles[self.starts[scenarios] + places])
        mixed = round(self.settings.mixup * count)
        others, other_labels = self._fed(self.train[torch.randint(len(self.train), (mixed,))])
        shares = torch.cat([torch.rand(mixed), torch.ones(count - mixed)]).to(self.device)
        share = shares[:mixed].view(-1, 1, 1, 1)
        tiles = torch.cat([share * tiles[:mixed] + (1 - share) * others, tiles[mixed:]])
        return tiles, labels, torch.cat([other_labels, labels[mixed:]]), shares

    def _fed(self, images: LabelledImages) -> tuple[Tensor, Tensor]:
        """Images as floats in [0, 1], augmented, and their labels, where the model computes."""
        pixels, augment = images.pixels.to(self.device).float() / 255, self.settings.augment
        if len(images) and augment != "none":
            pixels = augment(pixels) if callable(augment) else mild(pixels)
        return pixels, images.labels.to(self.device)

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        normalize = self.subject.normalize
        logits: Tensor = model((images if normalize is None else normalize(images)).to(dtype))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _backward(self, loss: Tensor) -> float:
        loss.backward()
        return loss.item()

    def _update(self) -> None:
        for parameter, master in self.masters:
            if master is not parameter:
                master.grad = None if parameter.grad is None else parameter.grad.float()
        self.optimizer.step()
        for parameter, master in self.masters:
            if master is not parameter:
                parameter.data.copy_(master)

    def _training_mode(self) -> None:
        """Train, but for what is frozen: its batch statistics would move too."""
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
            if frozen or (self.settings.batch_norm == "fixed" and isinstance(module, _NormBase)):
                module.eval()

    def _resume(self) -> None:
        with suppress(FileNotFoundError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
            progress = torch.load(self._progress_file, weights_only=True, map_location=self.device)
            state = kept_state(self.folder, self.weight, self.rate, progress["epochs"])
            self.optimizer.load_state_dict(progress["optimizer"])
            self.model.load_state_dict(state)
            with torch.no_grad():
                for (parameter, master), kept in zip(self.masters, progress["masters"], strict=True):
                    if master is not parameter:
                        master.copy_(kept)
            self.epochs = progress["epochs"]

    @property
    def _progress_file(self) -> Path:
        return _file(self.folder, self.weight, self.rate)


def steps_of(material: Material, settings: CorrectionSettings) -> int:
    """Optimiser steps of one epoch."""
    return -(-len(material.train) // settings.batch)


def kept_state(folder: Path, weight: float, rate: float, epochs: int) -> State:
    """The model's state of a trial after so many epochs, which were run."""
    state: State = torch.load(_file(folder, weight, rate, epochs), weights_only=True)
    return state


def trainable_copy(subject: Subject, settings: CorrectionSettings) -> nn.Module:
    """The subject's model without ``torch.compile``'s wrapping, copied, with the parameters that may change.

    Raises:
        DefuseError: a pattern that no parameter has, or no parameter is left to change.
    """
    model = plain_copy(subject.model)
    names = [name for name, _ in model.named_parameters()]
    for pattern in settings.frozen:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DefuseError(
                f"defuse_correct(frozen=...) names {pattern!r}, which is no parameter of subject {subject.name!r}: "
                f"it has {', '.join(names)}."
            )
    for name, parameter in model.named_parameters():
        if settings.freezes(name):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DefuseError(
            f"Every parameter of the model of subject {subject.name!r} has requires_grad=False: leave those that "
            "correction may change at True."
        )
    return model


def plain_copy(model: nn.Module, state: State | None = None) -> nn.Module:
    """A copy with the same flags, without ``torch.compile``'s wrapping, holding ``state`` if one is given."""
    plain = copy.deepcopy(getattr(model, "_orig_mod", model))
    if state is not None:
        plain.load_state_dict(state)
    return plain


def _parts(images: int, tiles: int, at_once: int) -> int:
    """Into how few parts both must be cut, so that no part of them together is larger than ``at_once``."""
    parts = 1
    while -(-images // parts) + -(-tiles // parts) > max(2, at_once):
        parts += 1
    return parts


def _pieces(tensors: Sequence[Tensor], parts: int) -> list[tuple[Tensor, ...]]:
    """Tensors of one length, cut alike into so many parts."""
    return list(zip(*(tensor.tensor_split(parts) for tensor in tensors), strict=True))


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def _file(folder: Path, weight: float, rate: float, epochs: int | None = None) -> Path:
    return folder / f"lambda{weight!r}-rate{rate!r}{'' if epochs is None else f'-epoch{epochs}'}.pt"
