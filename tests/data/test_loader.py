"""Batches for training, with and without repeat factor sampling, and for evaluation, without bad images."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils.env import seed_all_rng
from helpers.reading import write_image

from d2timm import ConfigError
from d2timm.data import Mapper, workers
from d2timm.data.bad_samples import BadSample, bad_samples
from d2timm.data.loader import LIMIT, TrainLoader, build_test_loader, build_train_loader

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


# Images that cannot be read


@pytest.fixture
def files(tmp_path: Path) -> list[Entry]:
    """Four images, of which 1 is no image, 2 has another size by now, and 3 does not exist any more."""
    entries = []
    for number in range(4):
        file = write_image(tmp_path / f"{number}.png", (40, 20) if number != 2 else (20, 20))
        entries.append(
            {"file_name": str(file), "image_id": number, "width": 40, "height": 20, "annotations": []}
        )
    (tmp_path / "1.png").write_text("text")
    (tmp_path / "3.png").unlink()
    return entries


MAPPER = Mapper(False, ["bbox"], [], "RGB")
REASONS = (
    "1.png: cannot be read as an image: ",
    "2.png: the image no longer has 40x20 pixels",
    "3.png: cannot be read",
)


def train_batches(files: list[Entry], count: int, **more: Any) -> tuple[list[list[int]], Any]:
    loader = build_train_loader(files, MAPPER, total_batch_size=2, **more)
    batches = itertools.islice(loader, count)
    return [[entry["image_id"] for entry in batch] for batch in batches], loader


@pytest.mark.parametrize("workers", [0, 2])
def test_training_leaves_out_bad_images(
    files: list[Entry], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        batches, loader = train_batches(files, 6, num_workers=workers, on_error="skip")
    assert batches == [[0, 0]] * 6
    found = sorted(bad_samples(loader))
    assert [reason in sample for sample, reason in zip(found, REASONS, strict=True)] == [True] * 3
    warnings = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert sorted(warnings) == [f"An image is left out: {sample}" for sample in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_out_bad_images(files: list[Entry], workers: int) -> None:
    loader = build_test_loader(files, MAPPER, num_workers=workers, on_error="skip")
    assert len(loader) == 4
    assert [[entry["image_id"] for entry in batch] for batch in loader] == [[0]]
    assert [reason in sample for sample, reason in zip(bad_samples(loader), REASONS, strict=True)] == [
        True
    ] * 3
    assert len([*loader]) == 1
    assert len(bad_samples(loader)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_in_batches(files: list[Entry], workers: int) -> None:
    several = [*files, *files[:1], *files[:1]]
    loader = build_test_loader(several, MAPPER, workers, on_error="skip", batch_size=4)
    assert len(loader) == 2
    assert [[entry["image_id"] for entry in batch] for batch in loader] == [[0], [0, 0]]
    assert len(bad_samples(loader)) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("build", [build_train_loader, build_test_loader])
def test_bad_image_stops_the_run(files: list[Entry], build: Any, workers: int) -> None:
    more = {"total_batch_size": 1} if build is build_train_loader else {}
    loader = build(files[2:3], MAPPER, num_workers=workers, on_error="stop", **more)
    with pytest.raises(
        ConfigError, match=r"2\.png: the image no longer .*; data\.on_error=skip leaves it out$"
    ) as error:
        next(iter(loader))
    assert "\n" not in str(error.value)


def test_training_stops_if_no_image_can_be_read(files: list[Entry]) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{LIMIT + 1} images in a row cannot be read, the last one is .*png: "
    ):
        train_batches(files[1:], 1, on_error="skip")


def test_evaluation_without_any_image_has_no_batches(files: list[Entry]) -> None:
    loader = build_test_loader(files[1:], MAPPER, on_error="skip")
    assert [*loader] == []
    assert len(bad_samples(loader)) == 3


def test_other_errors_are_not_hidden(files: list[Entry]) -> None:
    def broken(entry: Entry) -> Entry:
        raise ZeroDivisionError(entry["image_id"])

    train = build_train_loader(files, broken, total_batch_size=1, on_error="skip")
    for loader in (train, build_test_loader(files, broken, on_error="skip")):
        with pytest.raises(ZeroDivisionError):
            next(iter(loader))


def test_loaders_of_other_packages_have_no_bad_samples() -> None:
    assert bad_samples([1, 2]) == []
    assert bad_samples(object()) == []
    assert BadSample("x").reason == "x"


# Positions and workers


def numbered(entry: Entry) -> Entry:
    """An image and a random number of its augmentation."""
    return {**entry, "random": random.random()}


def take(loader: TrainLoader, count: int) -> list[list[tuple[int, float]]]:
    batches = itertools.islice(loader, count)
    return [[(entry["image_id"], entry["random"]) for entry in batch] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_loader_continues_where_another_one_was(workers: int) -> None:
    expected = take(build_train_loader(dataset(), numbered, 4, seed=3), 60)
    first = build_train_loader(dataset(), numbered, 4, workers, seed=3)
    assert take(first, 25) == expected[:25]
    second = build_train_loader(dataset(), numbered, 4, workers, seed=3)
    second.load_state_dict(first.state_dict())
    assert take(second, 35) == expected[25:]
    assert second.state_dict()["images"] == 240


def test_another_order_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    first = build_train_loader(dataset(), numbered, 4, seed=3)
    take(first, 25)
    second = build_train_loader(dataset()[1:], numbered, 8, seed=3)
    second.load_state_dict(first.state_dict())
    assert second.position == 12
    assert "batch size 8 instead of 4" in caplog.text
    assert "99 images" in caplog.text


def test_loading_does_not_change_the_random_numbers_of_the_process() -> None:
    random.seed(5)
    expected = [random.random() for _ in range(2)]
    random.seed(5)
    found = [random.random()]
    take(build_train_loader(dataset(), numbered, 4, seed=3), 3)
    assert [*found, random.random()] == expected


@pytest.mark.parametrize(
    ("gpu", "cores", "processes", "expected"),
    [
        (True, 2, 1, 2),
        (True, 16, 1, 8),
        (True, 16, 4, 4),
        (True, 4, 8, 1),
        (False, 64, 1, 2),
        (False, 1, 1, 1),
    ],
)
def test_workers_are_chosen_by_the_cores(
    gpu: bool, cores: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D2TIMM_CORES", str(cores))
    monkeypatch.setattr(workers.comm, "get_local_size", lambda: processes)
    monkeypatch.setattr(workers.torch.cuda, "is_available", lambda: gpu)
    assert workers.count_workers("auto") == expected
    assert [workers.count_workers(number) for number in (0, 3)] == [0, 3]


class Deadly:
    """A mapper whose worker dies at an image, as for lack of memory; the first time, or always."""

    def __init__(self, always: bool) -> None:
        self.always = always
        self.died = multiprocessing.get_context("fork").Value("i", 0)

    def __call__(self, entry: Entry) -> Entry:
        if entry["image_id"] == 7 and (self.always or not self.died.value):
            self.died.value = 1
            os.kill(os.getpid(), signal.SIGKILL)
        return numbered(entry)


def test_worker_that_dies_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    expected = take(build_train_loader(dataset(), numbered, 4, seed=3), 30)
    assert take(build_train_loader(dataset(), Deadly(always=False), 4, 2, seed=3), 30) == expected
    assert "it is replaced" in caplog.text
    test = build_test_loader(dataset(), Deadly(always=False), num_workers=2)
    assert [entry["image_id"] for (entry,) in test] == list(range(IMAGES))


def test_workers_that_die_again_and_again_are_an_error() -> None:
    loader = build_train_loader(dataset(), Deadly(always=True), 4, 1, seed=3)
    with pytest.raises(RuntimeError, match="worker"):
        take(loader, 30)
