"""Panoptic quality by hand, against its definition in a few lines, and of a set."""

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

from d2timm.evaluation.panoptic import PanopticEvaluator, compare

Map = NDArray[np.int64]
Segment = dict[str, Any]

CAT, SKY = (True, 0), (False, 0)  # classes of objects and of the rest have the same numbers
TRUTH = np.array([[1, 1, 1, 1, 2, 2, 2, 2]] * 2)  # 8 pixels each


def segment(number: int, kind: tuple[bool, int] = CAT, crowd: int = 0) -> Segment:
    return {"id": number, "isthing": kind[0], "category_id": kind[1], "iscrowd": crowd}


def row(*numbers: int) -> Map:
    """Two rows of the same numbers."""
    return np.array([numbers] * 2)


def counts(found: Map, *segments: Segment, truth: Sequence[Segment] = ()) -> dict[Any, list[float]]:
    """Class -> sum of IoU, true positives, false positives, false negatives."""
    given = truth or [segment(1), segment(2, SKY)]
    return {kind: c.tolist() for kind, c in compare(TRUTH, given, found, segments).items()}


# By hand


def test_perfect() -> None:
    found = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY))
    assert found == {CAT: [1, 1, 0, 0], SKY: [1, 1, 0, 0]}


def test_nothing_found() -> None:
    assert counts(row(*[0] * 8)) == {CAT: [0, 0, 0, 1], SKY: [0, 0, 0, 1]}


def test_wrong_class() -> None:
    found = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5, SKY), segment(9, SKY))
    assert found == {CAT: [0, 0, 0, 1], SKY: [1, 1, 1, 0]}
    other = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5, (True, 1)), segment(9, SKY))
    assert other == {CAT: [0, 0, 0, 1], (True, 1): [0, 0, 1, 0], SKY: [1, 1, 0, 0]}


def test_partly_found() -> None:
    found = counts(row(5, 5, 5, 9, 9, 9, 9, 9), segment(5), segment(9, SKY))
    assert found == {CAT: [pytest.approx(3 / 4), 1, 0, 0], SKY: [pytest.approx(4 / 5), 1, 0, 0]}


def test_half_is_too_little() -> None:
    assert counts(row(5, 5, 0, 0, 0, 0, 0, 0), segment(5))[CAT] == [0, 0, 1, 1]


def test_split_in_two() -> None:
    found = counts(row(5, 5, 5, 6, 9, 9, 9, 9), segment(5), segment(6), segment(9, SKY))
    assert found[CAT] == [pytest.approx(3 / 4), 1, 1, 0]


def test_two_in_one() -> None:
    truth = [segment(1), segment(2)]
    assert counts(row(*[5] * 8), segment(5), truth=truth) == {CAT: [0, 0, 1, 2]}


def test_pixels_without_truth_count_for_nothing() -> None:
    truth = [segment(1)]  # nobody says what 2 is
    assert counts(row(*[5] * 8), segment(5), truth=truth) == {CAT: [1, 1, 0, 0]}
    mostly = row(0, 0, 0, 5, 5, 5, 5, 5)
    assert counts(mostly, segment(5), truth=truth) == {CAT: [0, 0, 0, 1]}
    half = row(0, 0, 5, 5, 5, 5, 0, 0)
    assert counts(half, segment(5), truth=truth) == {CAT: [0, 0, 1, 1]}
    assert counts(half, segment(5, SKY), truth=truth) == {CAT: [0, 0, 0, 1], SKY: [0, 0, 1, 0]}


def test_crowds_are_neither_found_nor_missed() -> None:
    truth = [segment(1), segment(2, CAT, crowd=1)]
    assert counts(row(*[0] * 8), truth=truth) == {CAT: [0, 0, 0, 1]}
    inside = row(5, 5, 5, 5, 6, 6, 7, 7)
    assert counts(inside, segment(5), segment(6), segment(7), truth=truth) == {CAT: [1, 1, 0, 0]}
    # a crowd of cats forgives cats only
    assert counts(inside, segment(5), segment(6), segment(7, SKY), truth=truth)[SKY] == [0, 0, 1, 0]


def test_segments_without_pixels() -> None:
    found = counts(row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY), segment(7))
    assert found == {CAT: [1, 1, 0, 0], SKY: [1, 1, 0, 0]}


def test_large_numbers_of_segments() -> None:
    number = 256**3 - 1
    truth = np.where(TRUTH == 1, number, 0)
    assert compare(truth, [segment(number)], TRUTH, [segment(1)])[CAT].tolist() == [1, 1, 0, 0]


# By definition


def reference(truth: Map, true: Sequence[Segment], found: Map, segments: Sequence[Segment]) -> dict[Any, Any]:
    """Each pair of segments compared pixel by pixel."""

    def kind(segment: Segment) -> Any:
        return segment["isthing"], segment["category_id"]

    known = np.isin(truth, [s["id"] for s in true])
    totals: dict[Any, list[float]] = {}
    hits = set()
    for found_segment in segments:
        own = found == found_segment["id"]
        total = totals.setdefault(kind(found_segment), [0, 0, 0, 0])
        crowds = np.zeros_like(own)
        for s in true:
            if kind(s) != kind(found_segment):
                continue
            mask = truth == s["id"]
            if s["iscrowd"]:
                crowds |= mask
            elif (iou := (own & mask).sum() / max(((own & known) | mask).sum(), 1)) > 0.5:
                total[0] += iou
                total[1] += 1
                hits.add((found_segment["id"], s["id"]))
        matched = any(number == found_segment["id"] for number, _ in hits)
        if not matched and own.any() and (own & (~known | crowds)).sum() <= own.sum() / 2:
            total[2] += 1
    for s in true:
        if not s["iscrowd"] and not any(number == s["id"] for _, number in hits):
            totals.setdefault(kind(s), [0, 0, 0, 0])[3] += 1
    return {key: total for key, total in totals.items() if any(total)}


@st.composite
def images(draw: st.DrawFn) -> tuple[Map, list[Segment], Map, list[Segment]]:
    """Random maps in which segments overlap much or little, and random classes and crowds of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    scale = draw(st.sampled_from([1, 2, 4]))
    truth = np.kron(rng.integers(0, 5, shape), np.ones((scale, scale), np.int64))
    noise = draw(st.sampled_from([0, 0.2, 0.6]))
    found = np.where(rng.random(truth.shape) < noise, rng.integers(0, 5, truth.shape), truth)
    kinds = [(True, 0), (False, 0), (True, 1)]
    sides = [
        [
            segment(number, draw(st.sampled_from(kinds)), draw(st.integers(0, 1)))
            for number in range(1, 5)
            if draw(st.booleans())
        ]
        for _ in range(2)
    ]
    return truth, sides[0], found, sides[1]


@given(images())
def test_counts_are_those_of_the_definition(image: tuple[Map, list[Segment], Map, list[Segment]]) -> None:
    got = {kind: count.tolist() for kind, count in compare(*image).items()}
    assert got == {kind: pytest.approx(count) for kind, count in reference(*image).items()}


@given(images())
def test_truth_as_found_is_perfect(image: tuple[Map, list[Segment], Map, list[Segment]]) -> None:
    truth, true, _, _ = image
    for iou, hits, wrong, missed in compare(truth, true, truth, true).values():
        there = [s for s in true if not s["iscrowd"] and not (truth == s["id"]).any()]
        assert iou == hits
        assert (wrong, missed <= len(there)) == (0, True)


# Of a set


@pytest.fixture
def evaluator(tmp_path: Path) -> Iterator[PanopticEvaluator]:
    """That of a set of two images, each with a cat and the sky."""
    entries = []
    for image_id in (3, 8):
        file = tmp_path / f"{image_id}.png"
        blue_green_red = np.zeros((*TRUTH.shape, 3), np.uint8)
        blue_green_red[..., 1] = TRUTH  # segments 256 and 512
        cv2.imwrite(str(file), blue_green_red)
        info = [segment(256), segment(512, SKY)]
        entries.append({"image_id": image_id, "pan_seg_file_name": str(file), "segments_info": info})
    name = str(tmp_path)
    DatasetCatalog.register(name, lambda: entries)
    made = PanopticEvaluator(name)
    made.reset()
    yield made
    DatasetCatalog.remove(name)


def process(evaluator: PanopticEvaluator, image_id: int, found: Map, *segments: Segment) -> None:
    panoptic = (torch.tensor(found, dtype=torch.int32), list(segments))
    evaluator.process([{"image_id": image_id}], [{"panoptic_seg": panoptic}])


def test_qualities_of_a_set(evaluator: PanopticEvaluator) -> None:
    process(evaluator, 8, row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY))
    process(evaluator, 3, row(5, 5, 5, 6, 9, 9, 9, 9), segment(5), segment(6), segment(9, (False, 4)))
    numbers = evaluator.evaluate()["panoptic_seg"]
    cat = (1.75 / 2.5, 1.75 / 2, 2 / 2.5)  # two of two, and one that is none
    sky = (1 / 1.5, 1, 1 / 1.5)
    other = (0, 0, 0)
    for key, *values in zip(("PQ", "SQ", "RQ"), cat, sky, other, strict=True):
        assert numbers[f"{key}_th"] == pytest.approx(100 * values[0])
        assert numbers[f"{key}_st"] == pytest.approx(100 * (values[1] + values[2]) / 2)
        assert numbers[key] == pytest.approx(100 * sum(values) / 3)


def test_a_set_without_stuff_has_no_number_for_it(evaluator: PanopticEvaluator) -> None:
    for entry in evaluator._entries.values():
        entry["segments_info"] = entry["segments_info"][:1]
    process(evaluator, 3, row(5, 5, 5, 5, 0, 0, 0, 0), segment(5))
    numbers = evaluator.evaluate()["panoptic_seg"]
    assert numbers["PQ"] == numbers["PQ_th"] == 100
    assert math.isnan(numbers["PQ_st"])


def test_reset_forgets(evaluator: PanopticEvaluator) -> None:
    process(evaluator, 3, row(*[0] * 8))
    evaluator.reset()
    process(evaluator, 8, row(5, 5, 5, 5, 9, 9, 9, 9), segment(5), segment(9, SKY))
    assert set(evaluator.evaluate()["panoptic_seg"].values()) == {100}
