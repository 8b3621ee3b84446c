"""From a subject and its model to failure modes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pytest_defuse.discover.discovery import Candidate
from pytest_defuse.explain.failure_modes import (
    FailureMode,
    FailureModes,
    Group,
    class_groups,
    find_failure_modes,
    mask_group,
)
from pytest_defuse.explain.features import FeatureNetwork
from pytest_defuse.explain.settings import ExplainSettings
from pytest_defuse.rules.gain import Features, Mask
from pytest_defuse.rules.trees import Path as Rule
from pytest_defuse.rules.trees import matches
from pytest_defuse.runtime.determinism import seeded
from pytest_defuse.runtime.progress import Progress
from pytest_defuse.subject.classifier import Classifier
from pytest_defuse.subject.images import LabelledImages
from pytest_defuse.subject.subject import Subject


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The failure modes of a model on a subject's test set, and what they were read from.

    Attributes:
        network: whose features the rules are about.
        features: float32 N x F, of the test images.
        predictions: class indices, int64 N, of the model on the test images.
        failed: bool N, where these differ from the labels.
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

    def images(self, mode: FailureMode) -> LabelledImages:
        """The test images that a failure mode's rule picks from its group, among those that measured it."""
        return self.subject.test_images[torch.from_numpy(self.modes.rows(mode.group, mode.path, self.features))]


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
    """Find the failure modes of a model on the subject's test set (Barlow, section 5).

    Args:
        model: the model that fails; neither it nor the subject's model is changed.
        cache: the folder in which features are kept.
        names: what people call features: by :attr:`FeatureNetwork.key`, then by number.

    Raises:
        DefuseError: the network has no such features, or the logits or data cannot be used.
    """
    settings = settings or ExplainSettings()
    with seeded(seed):
        images = subject.test_images
        predictions = model.predict(images.pixels).numpy()
        network = feature_network(subject, model, settings.layer)
        features = network.read(images.pixels, cache, progress)
    labels = images.labels.numpy()
    masks = [mask_group(name, mask, len(images)) for name, mask in subject.groups.items()]
    groups = [*class_groups(subject.classes, labels, predictions), *masks]
    named = (names or {}).get(network.key, {})
    failed = predictions != labels
    modes = find_failure_modes(features, failed, groups, settings, seed=seed, names=named)
    return Explanation(subject, model, network, features, predictions, failed, modes, settings, seed)


def feature_network(subject: Subject, model: Classifier, layer: str | None = None) -> FeatureNetwork:
    """The network whose features describe the subject's images: its ``feature_network``, or the model itself."""
    if subject.feature_network is None:
        return FeatureNetwork(model, layer)
    other = Classifier(
        subject.feature_network,
        len(subject.classes),
        normalize=subject.normalize,
        device=model.device,
        name=f"the feature network of subject {subject.name!r}",
    )
    return FeatureNetwork(other, layer)


def matching_images(network: FeatureNetwork, images: LabelledImages, rule: Rule, cache: Path | None = None) -> Tensor:
    """Which images, bool N, meet a rule's conditions: where Defuse may start from, or correction learn."""
    return torch.from_numpy(matches(rule, network.read(images.pixels, cache)))


def describe_region(explanation: Explanation, candidate: Candidate) -> FailureModes:
    """Run Barlow over what Defuse found: which features tell a region's pictures from real images of their label.

    The group is the candidate's pictures with all test images of its label; as everywhere, failures are where the
    model differs from the label, half of the images grow the tree and the others measure it. Generated pictures
    may differ from real ones by their generator alone: look at the figures before believing a rule.
    """
    label = candidate.region.label
    real = explanation.subject.test_images.labels.numpy() == label
    pictures = torch.cat([candidate.correction, candidate.held_out])
    said = torch.cat([candidate.correction_predictions, candidate.held_out_predictions]).numpy()
    with seeded(explanation.seed):
        features = np.concatenate([explanation.features[real], explanation.network.read(pictures)])
    failed = np.concatenate([explanation.failed[real], said != label])
    group = Group("images", f"of a region of {explanation.subject.classes[label]}", np.arange(len(failed)))
    return find_failure_modes(features, failed, [group], explanation.settings, seed=explanation.seed)
