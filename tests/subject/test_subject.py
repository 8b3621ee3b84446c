from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_defuse import Subject
from pytest_defuse.runtime.errors import DefuseError

GREY = torch.zeros(1, 4, 4, dtype=torch.uint8)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def subject(**changes: Any) -> Subject:
    parts: dict[str, Any] = {
        "name": "pets",
        "model": net(),
        "classes": ["cat", "dog"],
        "train": [(GREY, 0), (GREY + 9, 1)],
        "test": [(GREY, 1)],
    }
    return Subject(**(parts | changes))


@pytest.mark.parametrize("name", ["a", "7", "digits", "my_model-2.1", "A.b"])
def test_names_of_folders_are_accepted(name: str) -> None:
    assert subject(name=name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "é", None, 3])
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(DefuseError, match=r"Subject\(name=.*\) becomes a folder: use letters"):
        subject(name=name)


@pytest.mark.parametrize("classes", ["cat", [0, 1], ["cat", 1], None, 2, {"cat": 0, "dog": 1}])
def test_classes_other_than_a_list_of_names_are_refused(classes: Any) -> None:
    with pytest.raises(DefuseError, match=r"Subject\(classes=...\) must be a list of names"):
        subject(classes=classes)


@pytest.mark.parametrize("classes", [[], ["cat"]])
def test_classes_are_at_least_two_names(classes: list[str]) -> None:
    with pytest.raises(DefuseError, match="must have at least two names"):
        subject(classes=classes)


@pytest.mark.parametrize("model", [None, net, "net.pt", torch.zeros(3)])
def test_a_model_other_than_a_module_is_refused(model: Any) -> None:
    with pytest.raises(DefuseError, match=rf"Subject\(model=...\) is a {type(model).__name__}: give a torch.nn.Module"):
        subject(model=model)


@pytest.mark.parametrize("judges", [[], net(), ["net.pt"], [net(), None], 3])
def test_judges_other_than_a_list_of_modules_are_refused(judges: Any) -> None:
    with pytest.raises(DefuseError, match=r"Subject\(judges=...\) must be a list of at least one torch.nn.Module"):
        subject(judges=judges)


def test_images_are_read_once_with_their_labels() -> None:
    pets = subject(validation=[(GREY, 0), (GREY, 0)], shifts={"night": [(GREY, 1)]})
    assert pets.train_images is pets.train_images
    assert pets.train_images.labels.tolist() == [0, 1]
    assert pets.test_images.labels.tolist() == [1]
    assert pets.validation_images is not None
    assert len(pets.validation_images) == 2
    assert pets.shift_images("night").labels.tolist() == [1]
    assert subject().validation_images is None


def test_messages_name_a_data_set_as_the_user_does() -> None:
    with pytest.raises(DefuseError, match=r"^shifts\['night'\]\[0\] has label 2"):
        subject(shifts={"night": [(GREY, 2)]}).shift_images("night")


def test_the_classifier_applies_the_normalisation() -> None:
    seen: list[Tensor] = []

    def normalize(images: Tensor) -> Tensor:
        seen.append(images)
        return images

    subject(normalize=normalize).classifier().logits(GREY[None] + 255)
    assert seen[0].unique().tolist() == [1.0]


def test_the_classifier_can_be_of_another_model() -> None:
    other = net()
    pets = subject()
    assert pets.classifier(model=other).hash == subject(model=other).classifier().hash != pets.classifier().hash


def test_messages_of_the_classifier_name_the_subject() -> None:
    with pytest.raises(DefuseError, match=r"^the model of subject 'pets' returned shape"):
        subject(classes=["cat", "dog", "eel"]).classifier().logits(GREY[None])


def test_class_names_have_indices() -> None:
    assert subject().index_of("dog") == 1
    with pytest.raises(DefuseError, match="'eel' is not a class of subject 'pets', which has: cat, dog"):
        subject().index_of("eel")


def test_images_of_another_size_are_refused() -> None:
    subject().check_images(torch.zeros(3, 1, 4, 4), "train")
    with pytest.raises(DefuseError, match=r"train has images of 4 x 4 RGB, but the test set .* is 4 x 4 grey"):
        subject().check_images(torch.zeros(3, 3, 4, 4), "train")
