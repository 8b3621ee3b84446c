"""From a subject and a model to its failure modes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pytest_defuse.discover.discovery import Candidate
from pytest_defuse.explain.failure_modes import FailureModes, Group, class_groups, find_failure_modes, mask_group
from pytest_defuse.explain.features import FeatureNetwork
from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.gain import Features, Mask
from pytest_defuse.rules.trees import Conditions, matches
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.errors import InconclusiveError
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The failure modes of a model on a subject's test set, and the features in their rules.

    Attributes:
        features: float32 N x F, of the test images.
        predictions: class indices, int64 N, of the model on the test images.
        failed: bool N, where the predictions differ from the labels.
    """

    subject: Subject
    model: Classifier
    network: FeatureNetwork
    features: Features
    predictions: NDArray[np.int64]
    failed: Mask
    modes: FailureModes
    settings: ExplainSettings
    seed: int

    def __repr__(self) -> str:
        return repr(self.modes)

    @property
    def tested(self) -> FailureModes:
        """The failure modes, of which there can be none although groups were tested.

        Raises:
            InconclusiveError: no group has enough failures to be tested.
        """
        if self.modes.trees:
            return self.modes
        raise InconclusiveError(
            f"Failure modes of subject {self.subject.name!r} cannot be tested: the model is wrong on "
            f"{int(self.failed.sum())} of {len(self.failed)} test images, and no group of images has "
            f"{self.settings.min_failures} failures in each half. Give a larger test set, or lower "
            "defuse_explain(min_failures=...)."
        )


def explain(
    subject: Subject,
    model: Classifier,
    settings: ExplainSettings | None = None,
    *,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
    names: Mapping[str, Mapping[int, str]] | None = None,
) -> Explanation:
    """Find the failure modes of a model, which is not changed, on the subject's test set (Barlow, section 5).

    Args:
        cache: folder of stored features.
        names: names of features by :attr:`FeatureNetwork.key`, then by number.

    Raises:
        DefuseError: the network does not have the layer, or the logits or the data cannot be used.
    """
    settings = settings or ExplainSettings()
    with seeded(seed, model.device):
        images = subject.test_images
        predictions = model.predict(images.pixels).numpy()
        own = subject.feature_network
        classifier = model if own is None else subject.classifier(model.device, own, "the feature network")
        network = FeatureNetwork(classifier, settings.layer)
        features = network.features(images.pixels, cache, progress)
    labels = images.labels.numpy()
    masks = [mask_group(name, mask, len(images)) for name, mask in subject.groups.items()]
    groups = [*class_groups(subject.classes, labels, predictions), *masks]
    feature_names = {**(names or {}).get(network.earlier_key, {}), **(names or {}).get(network.key, {})}
    failed = predictions != labels
    modes = find_failure_modes(features, failed, groups, settings, seed=seed, names=feature_names, labels=labels)
    return Explanation(subject, model, network, features, predictions, failed, modes, settings, seed)


def matching_images(
    network: FeatureNetwork, images: LabelledImages, rule: Conditions, cache: Path | None = None
) -> Tensor:
    """Which images match a rule, bool N: images from which a discovery can start, or on which to finetune."""
    return torch.from_numpy(matches(rule, network.features(images.pixels, cache)))


def describe_region(explanation: Explanation, candidate: Candidate) -> FailureModes:
    """Run Barlow on a candidate of Defuse: which features separate a region's images from real images of its label.

    The group consists of the candidate's images and all test images of its label. The generator itself may make images
    differ from real ones, so look at the figures before you believe a rule.
    """
    label = candidate.region.label
    real = explanation.subject.test_images.labels.numpy() == label
    generated = torch.cat([candidate.correction, candidate.held_out])
    predictions = torch.cat([candidate.correction_predictions, candidate.held_out_predictions]).numpy()
    with seeded(explanation.seed, explanation.model.device):
        features = np.concatenate([explanation.features[real], explanation.network.features(generated)])
    failed = np.concatenate([explanation.failed[real], predictions != label])
    group = Group("images", f"of a region of {explanation.subject.classes[label]}", np.arange(len(failed)))
    return find_failure_modes(features, failed, [group], explanation.settings, seed=explanation.seed)
