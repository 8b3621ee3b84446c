"""Finetuning: copies of the model trained on training and scenario images together, epoch by epoch."""

import copy
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from pytest_defuse.correct.augment import mild
from pytest_defuse.correct.data import CorrectionData
from pytest_defuse.correct.settings import CorrectionSettings
from pytest_defuse.runtime.cache import get_or_make, read_tensors, write_tensors
from pytest_defuse.runtime.determinism import Stream, random_numbers, seeded
from pytest_defuse.runtime.errors import DefuseError
from pytest_defuse.runtime.training import Training
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.preprocessing import normalized
from pytest_defuse.subject.subject import Subject

State = dict[str, Tensor]
"""A model's state dict, on the CPU."""


class Finetuning:
    """Trains copies of a subject's model on F = L(D) + lambda * CE(D_f) (Defuse, equation 5).

    Random numbers depend only on (seed, step), the order of the images only on (seed, epoch): all trials see the same
    training images in the same order, and a resumed trial gives the same weights. ``folder`` contains the weights after
    each epoch, and the state of each training; an epoch has ``steps`` optimizer steps.
    """

    def __init__(
        self,
        subject: Subject,
        data: CorrectionData,
        settings: CorrectionSettings,
        *,
        seed: int,
        device: torch.device | str,
        folder: Path,
    ) -> None:
        self.subject, self.data, self.settings = subject, data, settings
        self.seed, self.device, self.folder = seed, device, folder
        tiles = list(data.tiles.values())
        self.tiles = LabelledImages(
            torch.cat([part.pixels for part in tiles]), torch.cat([part.labels for part in tiles])
        )
        self.sizes = torch.tensor([len(part) for part in tiles])
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.steps = -(-len(self.data.train) // settings.batch)
        self._old = plain_copy(subject.model).to(device).eval() if settings.distill else None

    def weights(
        self,
        lambda_: float,
        learning_rate: float,
        epochs: int,
        advance: Callable[[int, str], object] = lambda steps, note: None,
        say: Callable[[str], object] = lambda sentence: None,
    ) -> State:
        """The model's state after ``epochs`` epochs: from the folder, or trained now.

        Args:
            advance: is called for the steps of the last epoch only; earlier calls reported earlier epochs.
        """
        name = f"lambda{lambda_!r}-rate{learning_rate!r}"
        file = self.folder / f"{name}-epoch{epochs}.safetensors"
        done, earlier = 0, (epochs - 1) * self.steps

        def count_step(steps: int, note: str) -> None:
            nonlocal done
            done += steps
            if done > earlier:
                advance(min(steps, done - earlier), f"lambda {lambda_:g}, epoch {epochs}, {note}")

        def train() -> None:
            training = self._training(lambda_, learning_rate, self.folder / f"{name}.state")
            with seeded(self.seed, self.device):
                training.run(epochs * self.steps, count_step, say)
            write_tensors(training.network.state_dict(), file)

        state = get_or_make(file, lambda: read_tensors(file), train, say)
        if not done:
            advance(self.steps, "resumed")
        return state

    def _training(self, lambda_: float, learning_rate: float, state: Path) -> Training:
        model = trainable_copy(self.subject, self.settings).to(self.device)
        _training_mode(model, self.settings)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        masters = {
            parameter: parameter.detach().float().requires_grad_()
            for parameter in parameters
            if parameter.dtype not in (torch.float32, torch.float64)
        }
        optimizer = self.settings.make_optimizer([masters.get(p, p) for p in parameters], learning_rate)

        @lru_cache(maxsize=1)
        def batches(epoch: int) -> Sequence[Tensor]:
            order = random_numbers(self.seed, Stream.FINETUNING_ORDER, epoch).permutation(len(self.data.train))
            # Batches of even size: batch normalisation cannot train on a single image that is left over.
            return torch.from_numpy(order).tensor_split(self.steps)

        def gradients(step: int) -> Tensor:
            chosen = batches(step // self.steps)[step % self.steps]
            loss = torch.zeros((), device=self.device)
            for part in self._losses(model, lambda_, chosen, step):
                part.backward()
                loss = loss + part.detach()
            return loss

        return Training(
            model,
            optimizer,
            gradients,
            lambda step: self.settings.rate_at(learning_rate, step / (self.settings.epochs * self.steps)),
            self.seed,
            f"finetuning with lambda {lambda_:g} and defuse_correct(rates={learning_rate:g})",
            state,
            list(masters.items()),
        )

    def _losses(self, model: nn.Module, lambda_: float, chosen: Tensor, step: int) -> Iterator[Tensor]:
        """The parts of F for one step; each is differentiated before the next one is computed."""
        settings = self.settings
        if settings.train_step is not None:
            yield settings.train_step(model, step)
            chosen = chosen[:0]
        # Training images come first, so that every trial augments them in the same way.
        batch = self._model_inputs(self.data.train[chosen])
        tiles = self._scenario_batch(settings.scenario_batch if lambda_ else 0)
        parts = _part_count(len(batch[0]), len(tiles[0]), settings.at_once)
        for (images, labels), (mixed, tile_labels, other_labels, shares) in zip(
            _split(batch, parts), _split(tiles, parts), strict=True
        ):
            if not len(images) + len(mixed):
                continue
            logits = self.logits(model, torch.cat([images, mixed]))
            loss = logits.new_zeros(())
            if len(images):
                on_train = (settings.loss or F.cross_entropy)(logits[: len(images)], labels)
                distilled = self._distilled(logits[: len(images)], images, labels)
                loss = loss + len(images) / len(batch[0]) * (on_train + distilled)
            if len(mixed):
                errors = shares * F.cross_entropy(logits[len(images) :], tile_labels, reduction="none")
                errors = errors + (1 - shares) * F.cross_entropy(logits[len(images) :], other_labels, reduction="none")
                loss = loss + lambda_ * errors.sum() / len(tiles[0])
            yield loss

    def _distilled(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor | float:
        """KL(old model || new model) on the images that the old model has right, times its weight."""
        if self._old is None:
            return 0.0
        with torch.no_grad():
            old = self.logits(self._old, images)
        divergence = F.kl_div(logits.log_softmax(dim=1), old.log_softmax(dim=1), log_target=True, reduction="none")
        return self.settings.distill * (divergence.sum(dim=1) * (old.argmax(dim=1) == labels)).mean()

    def _scenario_batch(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixed images, their two labels, and the weight of the first label.

        The images are correction tiles; every scenario is drawn equally often. A share of them is mixed with training
        images (mixup, Zhang et al. 2018), so that a generator's texture does not reveal scenario images.
        """
        scenarios = torch.randint(len(self.sizes), (count,))
        positions = (torch.rand(count) * self.sizes[scenarios]).long()
        tiles, labels = self._model_inputs(self.tiles[self.starts[scenarios] + positions])
        mixed = round(self.settings.mixup * count)
        others, other_labels = self._model_inputs(self.data.train[torch.randint(len(self.data.train), (mixed,))])
        shares = torch.cat([torch.rand(mixed), torch.ones(count - mixed)]).to(self.device)
        share = shares[:mixed].view(-1, 1, 1, 1)
        tiles = torch.cat([share * tiles[:mixed] + (1 - share) * others, tiles[mixed:]])
        return tiles, labels, torch.cat([other_labels, labels[mixed:]]), shares

    def _model_inputs(self, images: LabelledImages) -> tuple[Tensor, Tensor]:
        """Augmented images as floats in [0, 1], and their labels, on the device."""
        pixels, augment = images.pixels.to(self.device).float() / 255, self.settings.augment
        if len(images) and augment != "none":
            pixels = augment(pixels) if callable(augment) else mild(pixels)
        return pixels, images.labels.to(self.device)

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits, at least float32, of float images in [0, 1] on the device."""
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        normalize = self.subject.normalize
        logits: Tensor = model(normalized(normalize, images).to(dtype))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def trainable_copy(subject: Subject, settings: CorrectionSettings) -> nn.Module:
    """A copy of the subject's model, with frozen parameters excluded from training.

    Raises:
        DefuseError: no parameter is trainable, a pattern of ``frozen`` matches none, or the state is not only tensors.
    """
    model = plain_copy(subject.model)
    parameters = dict(model.named_parameters())
    for pattern in settings.frozen:
        frozen = [parameter for name, parameter in parameters.items() if fnmatchcase(name, pattern)]
        if not frozen:
            raise DefuseError(
                f"defuse_correct(frozen=...): {pattern!r} matches no parameter of subject {subject.name!r}, which has "
                f"{', '.join(parameters)}."
            )
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise DefuseError(
            f"Every parameter of the model of subject {subject.name!r} has requires_grad=False: set it to True for "
            "those that correction may change."
        )
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise DefuseError(
                f"The state_dict of the model of subject {subject.name!r} has a {type(value).__name__} under {name!r}, "
                "but a checkpoint can only contain tensors: return a tensor from get_extra_state."
            )
    return model


def plain_copy(model: nn.Module, state: State | None = None) -> nn.Module:
    """A copy with the same flags, without the wrapper of ``torch.compile``, and with the weights of ``state``."""
    plain = copy.deepcopy(getattr(model, "_orig_mod", model))
    if state is not None:
        plain.load_state_dict(state)
    return plain


def _training_mode(model: nn.Module, settings: CorrectionSettings) -> None:
    """Training mode, except for modules whose parameters are all frozen: their batch statistics would change too."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
        if frozen or (settings.batch_norm == "fixed" and isinstance(module, _NormBase)):
            module.eval()


def _part_count(images: int, tiles: int, at_once: int) -> int:
    """The smallest number of parts with at most ``at_once`` images and tiles together in each."""
    return next(parts for parts in count(1) if -(-images // parts) + -(-tiles // parts) <= max(2, at_once))


def _split(tensors: Sequence[Tensor], parts: int) -> list[tuple[Tensor, ...]]:
    """Tensors of equal length, each split into ``parts`` parts."""
    return list(zip(*(tensor.tensor_split(parts) for tensor in tensors), strict=True))
