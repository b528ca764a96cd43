"""A part of the images is held out: seeded, by image, stratified by class."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.checks.partition import Part, select

Coco = dict[str, Any]


def coco(*images: str, crowds: int = 0) -> Coco:
    """Images by the classes of their objects, such as ``"aab"``; the first objects are crowds."""
    annotations = [
        {"image_id": number, "category_id": ord(letter), "iscrowd": 0}
        for number, letters in enumerate(images, start=10)
        for letter in letters
    ]
    for annotation in annotations[:crowds]:
        annotation["iscrowd"] = 1
    ids = [{"id": number} for number in range(10, 10 + len(images))]
    return {"images": ids, "annotations": annotations, "categories": ["all"], "folder": "x"}


def parts(content: Coco, share: float, seed: int = 0) -> tuple[Coco, Coco]:
    """What is left for training, and what is held out."""
    left, held_out = (select(content, Part(share, seed, held)) for held in (False, True))
    return left, held_out


def classes(content: Coco) -> Counter[str]:
    return Counter(chr(annotation["category_id"]) for annotation in content["annotations"])


def ids(content: Coco) -> set[int]:
    return {image["id"] for image in content["images"]}


@given(
    st.lists(st.text("abc", max_size=4), min_size=2, max_size=12).filter(
        lambda images: sum(map(bool, images)) > 1
    ),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_parts_are_complementary_and_have_objects(images: list[str], share: float, seed: int) -> None:
    content = coco(*images)
    left, held_out = parts(content, share, seed)
    assert ids(left) | ids(held_out) == ids(content)
    assert not ids(left) & ids(held_out)
    for part in (left, held_out):
        assert part["annotations"]
        assert {a["image_id"] for a in part["annotations"]} <= ids(part)
        assert (part["categories"], part["folder"]) == (content["categories"], content["folder"])
    assert classes(left) + classes(held_out) == classes(content)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.2, 2), (0.25, 2), (0.5, 5), (0.99, 9)])
def test_share_of_the_images(share: float, count: int) -> None:
    assert len(ids(parts(coco(*["ab"] * 10), share)[1])) == count


def test_seed_determines_the_images() -> None:
    content = coco(*["a"] * 30)
    first, same, other = (ids(parts(content, 0.5, seed)[1]) for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize("seed", range(5))
def test_each_class_is_held_out_in_proportion(seed: int) -> None:
    _, held_out = parts(coco(*["aa"] * 20, *["b"] * 10, *["aac"] * 10), 0.2, seed)
    assert classes(held_out) == {"a": 12, "b": 2, "c": 2}
    assert len(ids(held_out)) == 8


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_class_of_a_single_image_is_for_training(share: float, seed: int) -> None:
    left, _ = parts(coco("ab", *["a"] * 9), share, seed)
    assert classes(left)["b"] == 1


def test_images_without_objects_are_held_out_in_proportion() -> None:
    _, held_out = parts(coco(*["a"] * 10, *[""] * 20), 0.3)
    assert (len(ids(held_out)), sum(classes(held_out).values())) == (9, 3)


@pytest.mark.parametrize("content", [coco(), coco("a"), coco("a", "", ""), coco("a", "b", crowds=1)])
def test_too_few_images_with_objects(content: Coco) -> None:
    with pytest.raises(ConfigError, match=r"^data\.val_share=0\.5: [01] images with objects cannot be split"):
        select(content, Part(0.5, 0, True))
