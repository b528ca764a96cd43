"""Features of the objects of a dataset, and a ranking by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2timm.choose import features
from d2timm.choose.features import BACKGROUND, score_features

BOX = "faster_rcnn_timm.py"


def test_all_objects_and_as_much_background_are_pooled(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}

    def keep(pooled: np.ndarray, labels: np.ndarray) -> float:
        seen.update(pooled=pooled, labels=labels)
        return 1.5

    monkeypatch.setattr(features, "log_evidence", keep)
    cfg = tiny(BOX, tmp_path)
    assert score_features(cfg, 100) == 1.5
    objects = seen["labels"][seen["labels"] != BACKGROUND]
    assert len(objects) > 6
    assert 0 < len(seen["labels"]) - len(objects) <= len(objects)
    assert seen["pooled"].shape[0] == len(seen["labels"])
    assert seen["pooled"].shape[1] > 100, "channels of all levels"
    assert np.isfinite(seen["pooled"]).all()
    first = seen["pooled"].copy()
    torch.manual_seed(1)
    score_features(cfg, 3)
    assert len(seen["pooled"]) < len(first)


def test_background_overlaps_no_object() -> None:
    boxes = torch.tensor([[0.0, 0.0, 30.0, 30.0], [40.0, 40.0, 60.0, 64.0]])
    generator = torch.Generator().manual_seed(0)
    from torchvision.ops import box_iou

    for _ in range(20):
        others = features._background(boxes, (64, 64), generator)
        assert len(others) <= 2
        assert ((others >= 0) & (others <= 64)).all()
        if len(others):
            assert box_iou(others, boxes).max() < features.LOW
    assert features._background(torch.zeros(0, 4), (64, 64), generator).shape == (0, 4)
