"""Panoptic quality: examples by hand, random images against the definition, and a dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from d2timm.data.datasets.panoptic import read_segments
from d2timm.evaluation.panoptic import PanopticEvaluator, compare

Map = NDArray[np.int64]
Segment = dict[str, Any]

CAT, SKY = (True, 0), (False, 0)  # thing and stuff classes have the same indices
GT = np.array([[1, 1, 1, 1, 2, 2, 2, 2]] * 2)  # 8 pixels each


def segment(number: int, category: tuple[bool, int] = CAT, crowd: int = 0) -> Segment:
    return {"id": number, "isthing": category[0], "category_id": category[1], "iscrowd": crowd}


def row(*numbers: int) -> Map:
    """Two rows with the same ids."""
    return np.array([numbers] * 2)


def counts(predicted: Map, *segments: Segment, gt: Sequence[Segment] = ()) -> dict[Any, list[float]]:
    """Class -> sum of IoU, true positives, false positives, false negatives."""
    gt = gt or [segment(1), segment(2, SKY)]
    return {category: c.tolist() for category, c in compare(GT, gt, predicted, segments).items()}


# By hand


def test_perfect() -> None:
    result = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY))
    assert result == {CAT: [1, 1, 0, 0], SKY: [1, 1, 0, 0]}


def test_no_predictions() -> None:
    assert counts(row(*[0] * 8)) == {CAT: [0, 0, 0, 1], SKY: [0, 0, 0, 1]}


def test_wrong_class() -> None:
    result = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5, SKY), segment(9, SKY))
    assert result == {CAT: [0, 0, 0, 1], SKY: [1, 1, 1, 0]}
    other = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5, (True, 1)), segment(9, SKY))
    assert other == {CAT: [0, 0, 0, 1], (True, 1): [0, 0, 1, 0], SKY: [1, 1, 0, 0]}


def test_partial_overlap() -> None:
    result = counts(row(5, 5, 5, 9, 9, 9, 9, 9), segment(5), segment(9, SKY))
    assert result == {CAT: [pytest.approx(3 / 4), 1, 0, 0], SKY: [pytest.approx(4 / 5), 1, 0, 0]}


def test_iou_of_one_half_is_no_match() -> None:
    assert counts(row(5, 5, 0, 0, 0, 0, 0, 0), segment(5))[CAT] == [0, 0, 1, 1]


def test_object_split_in_two() -> None:
    result = counts(row(5, 5, 5, 6, 9, 9, 9, 9), segment(5), segment(6), segment(9, SKY))
    assert result[CAT] == [pytest.approx(3 / 4), 1, 1, 0]


def test_two_objects_merged() -> None:
    gt = [segment(1), segment(2)]
    assert counts(row(*[5] * 8), segment(5), gt=gt) == {CAT: [0, 0, 1, 2]}


def test_unlabelled_pixels_are_ignored() -> None:
    gt = [segment(1)]  # 2 is unlabelled
    assert counts(row(*[5] * 8), segment(5), gt=gt) == {CAT: [1, 1, 0, 0]}
    mostly = row(0, 0, 0, 5, 5, 5, 5, 5)
    assert counts(mostly, segment(5), gt=gt) == {CAT: [0, 0, 0, 1]}
    half = row(0, 0, 5, 5, 5, 5, 0, 0)
    assert counts(half, segment(5), gt=gt) == {CAT: [0, 0, 1, 1]}
    assert counts(half, segment(5, SKY), gt=gt) == {CAT: [0, 0, 0, 1], SKY: [0, 0, 1, 0]}


def test_crowds_are_neither_matched_nor_missed() -> None:
    gt = [segment(1), segment(2, CAT, crowd=1)]
    assert counts(row(*[0] * 8), gt=gt) == {CAT: [0, 0, 0, 1]}
    inside = row(5, 5, 5, 5, 6, 6, 7, 7)
    assert counts(inside, segment(5), segment(6), segment(7), gt=gt) == {CAT: [1, 1, 0, 0]}
    # in a crowd of cats, only cats are ignored
    assert counts(inside, segment(5), segment(6), segment(7, SKY), gt=gt)[SKY] == [0, 0, 1, 0]


def test_segments_without_pixels() -> None:
    result = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY), segment(7))
    assert result == {CAT: [1, 1, 0, 0], SKY: [1, 1, 0, 0]}


def test_large_ids() -> None:
    number = 256**3 - 1
    gt_ids = np.where(GT == 1, number, 0)
    assert compare(gt_ids, [segment(number)], GT, [segment(1)])[CAT].tolist() == [1, 1, 0, 0]


# By definition


def reference(
    gt_ids: Map, gt_segments: Sequence[Segment], predicted_ids: Map, predicted_segments: Sequence[Segment]
) -> dict[Any, Any]:
    """Compare each pair of segments pixel by pixel."""

    def category(segment: Segment) -> Any:
        return segment["isthing"], segment["category_id"]

    labelled = np.isin(gt_ids, [s["id"] for s in gt_segments])
    totals: dict[Any, list[float]] = {}
    matches = set()
    for predicted in predicted_segments:
        own = predicted_ids == predicted["id"]
        total = totals.setdefault(category(predicted), [0, 0, 0, 0])
        crowds = np.zeros_like(own)
        for s in gt_segments:
            if category(s) != category(predicted):
                continue
            mask = gt_ids == s["id"]
            if s["iscrowd"]:
                crowds |= mask
            elif (iou := (own & mask).sum() / max(((own & labelled) | mask).sum(), 1)) > 0.5:
                total[0] += iou
                total[1] += 1
                matches.add((predicted["id"], s["id"]))
        matched = any(number == predicted["id"] for number, _ in matches)
        if not matched and own.any() and (own & (~labelled | crowds)).sum() <= own.sum() / 2:
            total[2] += 1
    for s in gt_segments:
        if not s["iscrowd"] and not any(number == s["id"] for _, number in matches):
            totals.setdefault(category(s), [0, 0, 0, 0])[3] += 1
    return {key: total for key, total in totals.items() if any(total)}


@st.composite
def images(draw: st.DrawFn) -> tuple[Map, list[Segment], Map, list[Segment]]:
    """Random maps whose segments overlap to all degrees, with random classes and crowds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    scale = draw(st.sampled_from([1, 2, 4]))
    gt_ids = np.kron(rng.integers(0, 5, shape), np.ones((scale, scale), np.int64))
    noise = draw(st.sampled_from([0, 0.2, 0.6]))
    predicted_ids = np.where(rng.random(gt_ids.shape) < noise, rng.integers(0, 5, gt_ids.shape), gt_ids)
    categories = [(True, 0), (False, 0), (True, 1)]
    gt_segments, predicted_segments = [
        [
            segment(number, draw(st.sampled_from(categories)), draw(st.integers(0, 1)))
            for number in range(1, 5)
            if draw(st.booleans())
        ]
        for _ in range(2)
    ]
    return gt_ids, gt_segments, predicted_ids, predicted_segments


@given(images())
def test_counts_follow_the_definition(image: tuple[Map, list[Segment], Map, list[Segment]]) -> None:
    result = {category: count.tolist() for category, count in compare(*image).items()}
    assert result == {category: pytest.approx(count) for category, count in reference(*image).items()}


@given(images())
def test_ground_truth_as_prediction_is_perfect(image: tuple[Map, list[Segment], Map, list[Segment]]) -> None:
    ids, segments, _, _ = image
    for iou, true_positives, false_positives, missed in compare(ids, segments, ids, segments).values():
        without_pixels = [s for s in segments if not s["iscrowd"] and not (ids == s["id"]).any()]
        assert iou == true_positives
        assert (false_positives, missed <= len(without_pixels)) == (0, True)


# A dataset


@pytest.fixture
def evaluator(tmp_path: Path) -> Iterator[PanopticEvaluator]:
    """An evaluator for a dataset of two images, each with a cat and the sky."""
    entries = []
    for image_id in (3, 8):
        file = tmp_path / f"{image_id}.png"
        blue_green_red = np.zeros((*GT.shape, 3), np.uint8)
        blue_green_red[..., 1] = GT  # segments 256 and 512
        cv2.imwrite(str(file), blue_green_red)
        info = [segment(256), segment(512, SKY)]
        entries.append({"image_id": image_id, "pan_seg_file_name": str(file), "segments_info": info})
    name = str(tmp_path)
    DatasetCatalog.register(name, lambda: entries)
    evaluator = PanopticEvaluator(name, read_segments)
    evaluator.reset()
    yield evaluator
    DatasetCatalog.remove(name)


def process(evaluator: PanopticEvaluator, image_id: int, predicted: Map, *segments: Segment) -> None:
    panoptic = (torch.tensor(predicted, dtype=torch.int32), list(segments))
    evaluator.process([{"image_id": image_id}], [{"panoptic_seg": panoptic}])


def test_qualities_of_a_dataset(evaluator: PanopticEvaluator) -> None:
    process(evaluator, 8, row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY))
    process(evaluator, 3, row(5, 5, 5, 6, 9, 9, 9, 9), segment(5), segment(6), segment(9, (False, 4)))
    metrics = evaluator.evaluate()["panoptic_seg"]
    cat = (1.75 / 2.5, 1.75 / 2, 2 / 2.5)  # two of two, and one false positive
    sky = (1 / 1.5, 1, 1 / 1.5)
    other = (0, 0, 0)
    for key, *values in zip(("PQ", "SQ", "RQ"), cat, sky, other, strict=True):
        assert metrics[f"{key}_th"] == pytest.approx(100 * values[0])
        assert metrics[f"{key}_st"] == pytest.approx(100 * (values[1] + values[2]) / 2)
        assert metrics[key] == pytest.approx(100 * sum(values) / 3)


def test_metrics_of_stuff_are_nan_if_there_is_none(evaluator: PanopticEvaluator) -> None:
    for entry in evaluator._entries.values():
        entry["segments_info"] = entry["segments_info"][:1]
    process(evaluator, 3, row(5, 5, 5, 5, 0, 0, 0, 0), segment(5))
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert metrics["PQ"] == metrics["PQ_th"] == 100
    assert math.isnan(metrics["PQ_st"])


def test_reset_discards_all_counts(evaluator: PanopticEvaluator) -> None:
    process(evaluator, 3, row(*[0] * 8))
    evaluator.reset()
    process(evaluator, 8, row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY))
    assert set(evaluator.evaluate()["panoptic_seg"].values()) == {100}
