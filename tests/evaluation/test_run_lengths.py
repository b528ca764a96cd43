"""Run lengths of the masks of a mask head equal those of the masks that detectron2 pastes, byte for byte."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from d2timm.evaluation.run_lengths import encode_counts, encode_roi_masks

Floats = NDArray[np.float32]
VALUES = ("random", "smooth", "flat", "steps", "near", "binary")


def pasted(masks: Floats, boxes: Floats, size: tuple[int, int]) -> list[bytes]:
    """What detectron2 and pycocotools give."""
    images = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), size, threshold=0.5)
    return [coco_mask.encode(np.asfortranarray(x.numpy(), np.uint8))["counts"] for x in images]


def masks_of(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    """Probabilities: with and without values for which rounding decides."""
    if kind == "smooth":
        noise = torch.from_numpy(rng.normal(size=(shape[0], 1, 4, 4)))
        values = torch.nn.functional.interpolate(noise, shape[1:], mode="bicubic")[:, 0].sigmoid().numpy()
    elif kind == "flat":
        values = np.full(shape, rng.choice([0, 0.5, 1, np.nextafter(np.float32(0.5), np.float32(0))]))
    elif kind == "steps":
        values = rng.choice([0, 0.25, 0.5, 0.75, 1], shape)
    elif kind == "near":
        values = 0.5 + rng.normal(0, 10 ** rng.uniform(-8, -3), shape)
    else:
        values = rng.integers(0, 2, shape) if kind == "binary" else rng.uniform(0, 1, shape)
    return values.clip(0, 1).astype(np.float32)


def boxes_in(size: tuple[int, int], count: int, rng: np.random.Generator, whole: bool = False) -> Floats:
    """Boxes in an image of all sizes, also smaller than a pixel, (N, 4) x0, y0, x1, y1."""
    height, width = size
    sides = 10 ** rng.uniform(-2, 2.5, (count, 2))
    centres = rng.uniform(0, 1, (count, 2)) * (width, height)
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    corners = corners.clip(0, (width, height, width, height)).astype(np.float32)
    corners = corners.round() if whole else corners
    return corners[(corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])]


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    cells=st.sampled_from([1, 2, 7, 14, 28, 56]),
    kind=st.sampled_from(VALUES),
    whole=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_text_equals_that_of_pasted_masks(
    size: tuple[int, int], cells: int, kind: str, whole: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = boxes_in(size, 6, rng, whole)
    masks = masks_of(kind, (len(boxes), cells, cells), rng)
    assert encode_roi_masks(masks, boxes, size) == pasted(masks, boxes, size)


@pytest.mark.parametrize("side", [28, 224])
def test_hundred_masks_of_a_photograph(side: int) -> None:
    rng = np.random.default_rng(0)
    boxes = boxes_in((480, 640), 100, rng)
    masks = masks_of("smooth", (len(boxes), side, side), rng)
    assert encode_roi_masks(masks, boxes, (480, 640)) == pasted(masks, boxes, (480, 640))


@pytest.mark.parametrize(
    ("box", "value"),
    [
        ((0, 0, 50, 40), 1.0),  # the whole image: no run ends before it does
        ((0, 0, 50, 40), 0.0),
        ((10, 0, 20, 40), 1.0),  # whole columns, which are one run
        ((9.5, 0, 20.5, 40), 1.0),  # a pixel's centre lies on the edge
        ((49.5, 39.5, 50, 40), 1.0),
        ((0, 0, 0.01, 0.01), 1.0),
    ],
)
def test_edges(box: tuple[float, ...], value: float) -> None:
    masks, boxes = np.full((1, 28, 28), value, np.float32), np.array([box], np.float32)
    assert encode_roi_masks(masks, boxes, (40, 50)) == pasted(masks, boxes, (40, 50))


def test_no_masks() -> None:
    assert encode_roi_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (4, 5)) == []


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1), max_size=5))
def test_text_of_any_counts(counts: list[list[int]]) -> None:
    height = 2**31 - 1  # pycocotools does not check the sum
    expected = [
        coco_mask.frPyObjects({"counts": c, "size": [height, 1]}, height, 1)["counts"] for c in counts
    ]
    flat, lengths = (
        np.array([n for c in counts for n in c], np.int64),
        np.array([*map(len, counts)], np.int64),
    )
    assert encode_counts(flat, lengths) == expected


def _encode_in_a_fork(arguments: tuple[Any, ...], results: Any) -> None:
    results.put(encode_roi_masks(*arguments))


def test_processes_forked_while_a_thread_encodes() -> None:
    rng = np.random.default_rng(0)
    boxes = boxes_in((120, 160), 20, rng)
    arguments = (masks_of("near", (len(boxes), 14, 14), rng), boxes, (120, 160))
    expected, done = encode_roi_masks(*arguments), threading.Event()

    def encode() -> None:
        while not done.is_set():
            encode_roi_masks(*arguments)

    thread = threading.Thread(target=encode)
    thread.start()
    context: Any = multiprocessing.get_context("fork")
    try:
        for _ in range(10):
            results = context.Queue()
            process = context.Process(target=_encode_in_a_fork, args=(arguments, results))
            process.start()
            assert results.get(timeout=30) == expected
            process.join(30)
            assert process.exitcode == 0
    finally:
        done.set()
        thread.join()
