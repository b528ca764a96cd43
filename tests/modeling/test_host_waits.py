"""Parts that wait less for a GPU compute exactly what detectron2's own compute."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.utils.events import EventStorage
from helpers.choices import compose
from helpers.operators import Operators
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from d2timm.config.build import instantiate
from d2timm.modeling.host_waits import FASTER, avoid_host_waits, without_statistics

SIGMOID = "+model.roi_heads.box_predictor.use_sigmoid_ce=True"


def as_fast(part: Any) -> Any:
    fast = copy.copy(part)
    fast.__class__ = FASTER[type(part)]
    return fast


Step: TypeAlias = tuple[dict[str, Tensor], dict[str, float]]


def step(model: nn.Module, batch: Any) -> Step:
    """Losses and gradients of an iteration, and what it logs."""
    torch.manual_seed(0)
    model.zero_grad()
    with EventStorage() as storage:
        losses: dict[str, Tensor] = model(batch)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return losses | gradients, {name: value for name, (value, _) in storage.latest().items()}


def assert_equal(model: nn.Module, batch: Any) -> None:
    """Assert that a step is the same with and without fewer waits, and with and without statistics."""
    expected, logged = step(model, batch)
    avoid_host_waits(model)
    found, statistics = step(model, batch)
    assert statistics == logged
    with without_statistics():
        quiet, remaining = step(model, batch)
    assert len(remaining) < len(logged)
    for values in (found, quiet):
        assert values.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in values.items())


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("mask_rcnn_timm.py", []),
        ("mask_rcnn_timm.py", ["model.roi_heads.mask_head.num_classes=1"]),
        ("faster_rcnn_timm.py", ["+model.roi_heads.box_predictor.cls_agnostic_bbox_reg=True", SIGMOID]),
        ("faster_rcnn_timm.py", ["+model.proposal_generator.min_box_size=12"]),
    ],
)
@pytest.mark.parametrize("without", [0, 1, 2], ids=["objects", "one image without", "no objects"])
def test_step_is_equal(
    tiny: Callable[..., Any], tmp_path: Path, recipe: str, more: list[str], without: int
) -> None:
    cfg = tiny(recipe, tmp_path, *more)
    batch = instantiate(cfg.dataloader.train).batch(0)
    for image in batch[:without]:
        image["instances"] = image["instances"][:0]
    assert_equal(instantiate(cfg.model).train(), batch)


@pytest.mark.parametrize("roi_heads", ["cascade_box", "cascade_mask_mmdet", "point_rend", "mask"])
def test_step_of_other_heads_is_equal(tiny: Callable[..., Any], tmp_path: Path, roi_heads: str) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path)
    cfg.dataloader.train.mapper.instance_mask_format = "bitmask"
    batch = instantiate(cfg.dataloader.train).batch(0)
    assert_equal(instantiate(compose("rcnn", "fpn", roi_heads).model).train(), batch)


def test_step_waits_less(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path)
    model = instantiate(cfg.model).train()
    batch = instantiate(cfg.dataloader.train).batch(0)
    with Operators() as before:
        step(model, batch)
    avoid_host_waits(model)
    with Operators() as after, without_statistics():
        step(model, batch)
    assert after.waits <= 0.4 * before.waits, "measured: 18 of 58, for two images"


def test_detections_are_equal(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path, "model.roi_heads.box_predictor.test_score_thresh=0.0")
    model = instantiate(cfg.model).eval()
    batch = instantiate(cfg.dataloader.train).batch(0)
    with torch.no_grad():
        expected = model(batch)
        avoid_host_waits(model)
        found = model(batch)
    for image, other in zip(expected, found, strict=True):
        assert len(image["instances"])
        assert torch.equal(image["instances"].pred_boxes.tensor, other["instances"].pred_boxes.tensor)
        assert torch.equal(image["instances"].pred_masks, other["instances"].pred_masks)


def test_diverged_proposals_are_an_error(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("faster_rcnn_timm.py", tmp_path)
    model = instantiate(cfg.model).train()
    avoid_host_waits(model)
    nn.init.constant_(model.proposal_generator.rpn_head.objectness_logits.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        step(model, instantiate(cfg.dataloader.train).batch(0))


qualities = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]), min_size=12, max_size=12)


@given(qualities, st.sampled_from([(1, 12), (3, 4), (12, 1), (0, 5)]), st.booleans())
def test_matcher_is_equal(values: list[float], shape: tuple[int, int], low_quality: bool) -> None:
    matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=low_quality)
    quality = torch.tensor(values[: shape[0] * shape[1]]).view(shape)
    for expected, found in zip(matcher(quality), as_fast(matcher)(quality), strict=True):
        assert torch.equal(expected, found)
        assert expected.dtype == found.dtype


@pytest.mark.parametrize("number", [0, 1, 50])
def test_deltas_are_equal(number: int) -> None:
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    boxes = torch.rand(2, number, 4, generator=torch.Generator().manual_seed(0))
    boxes[..., 2:] += boxes[..., :2] + 0.1
    assert torch.equal(transform.get_deltas(*boxes), as_fast(transform).get_deltas(*boxes))


def test_deltas_of_an_empty_box_are_not_finite() -> None:
    boxes = torch.tensor([[1.0, 1.0, 1.0, 5.0]])
    assert not as_fast(Box2BoxTransform((1.0,) * 4)).get_deltas(boxes, boxes + 1).isfinite().all()


def test_classes_of_a_user_stay() -> None:
    class Own(Matcher):
        pass

    holder = nn.Module()
    holder.matchers = [Own([0.5], [0, 1]), Matcher([0.5], [0, 1])]
    avoid_host_waits(holder)
    assert [type(matcher) for matcher in holder.matchers] == [Own, FASTER[Matcher]]
