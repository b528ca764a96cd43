"""The infinite stream of training batches, with and without repeat factor sampling."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from detectron2.utils.env import seed_all_rng

from d2timm import ConfigError
from d2timm.data.loader import build_train_loader

Entry = dict[str, Any]

IMAGES = 100
DRAWS = 4000


def dataset() -> list[Entry]:
    """Class 0 in all images, class 1 in a quarter of them, class 2 in one, and an image without objects."""
    entries = []
    for i in range(IMAGES):
        classes = [0] + [1] * (i % 4 == 0) + [2] * (i == 7)
        objects = [{"category_id": c, "iscrowd": 0} for c in classes] if i else []
        entries.append({"image_id": i, "height": 10, "width": 10 + i % 2 * 9, "annotations": objects})
    return entries


def draws(count: int = DRAWS, seed: int = 0, **more: Any) -> list[int]:
    """The ids of the first ``count`` images."""
    seed_all_rng(seed)
    loader = build_train_loader(dataset(), mapper=lambda entry: entry, total_batch_size=4, **more)
    return [entry["image_id"] for batch in itertools.islice(loader, count // 4) for entry in batch]


def test_batches_are_infinite_and_contain_one_orientation_each() -> None:
    seed_all_rng(0)
    loader = build_train_loader(dataset(), mapper=lambda entry: entry, total_batch_size=4)
    for batch in itertools.islice(loader, IMAGES):  # four epochs
        assert len(batch) == 4
        assert len({entry["width"] > entry["height"] for entry in batch}) == 1


def test_images_are_sampled_equally_without_a_threshold() -> None:
    counts = Counter(draws())
    assert len(counts) == IMAGES
    # landscape and portrait images fill separate batches, one of which is incomplete
    assert all(abs(count - DRAWS / IMAGES) <= 4 for count in counts.values())


def test_rare_classes_are_repeated_as_in_lvis() -> None:
    counts = Counter(draws(repeat_threshold=0.09))
    # class 2 occurs in one of 100 images: sqrt(0.09 / 0.01) = 3 times; class 1 is not rare
    common = sum(count for image, count in counts.items() if image != 7) / (IMAGES - 1)
    assert counts[7] / common == pytest.approx(3, rel=0.1)
    assert max(count for image, count in counts.items() if image != 7) < 1.2 * common


def test_higher_threshold_makes_more_classes_rare() -> None:
    counts = Counter(draws(repeat_threshold=1))
    rest = [count for image, count in counts.items() if image % 4 and image != 7]
    quarter = [count for image, count in counts.items() if image % 4 == 0 and image]
    ratio = (sum(quarter) / len(quarter)) / (sum(rest) / len(rest))
    assert ratio == pytest.approx((IMAGES / 24) ** 0.5, rel=0.15)


@pytest.mark.parametrize("threshold", [0.0, 0.09])
def test_seed_determines_the_order(threshold: float) -> None:
    one, same, other = (draws(200, seed, repeat_threshold=threshold) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("threshold", [-0.1, 1.5, 100])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ConfigError, match=rf"^repeat_threshold={threshold} .*0 .*1$"):
        draws(repeat_threshold=threshold)


def test_threshold_needs_object_annotations() -> None:
    pixels = [{k: v for k, v in entry.items() if k != "annotations"} for entry in dataset()]
    with pytest.raises(ConfigError, match=r"^repeat_threshold=0\.001 .*use 0$"):
        build_train_loader(pixels, lambda entry: entry, total_batch_size=1, repeat_threshold=0.001)
    assert build_train_loader(pixels, lambda entry: entry, total_batch_size=1)
