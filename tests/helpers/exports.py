"""Untrained detectors with distinct detections, and pictures for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from helpers.choices import compose

from d2timm.config.build import build_model, resolve_dataset
from d2timm.inference.trained import Trained

# Parts of parameter names whose weights are enlarged, so that the predictions are spread out
ENLARGED = ("cls_score", "bbox_pred", "predictor", "objectness_logits", "anchor_deltas", "ctrness")
SIDES = ["data.settings.shapes.test_short_edge=64", "data.settings.shapes.max_size=96"]


def untrained(model: str, neck: str, roi_heads: str, *overrides: str) -> Trained:
    """A tiny detector with random weights whose detections differ from each other."""
    cfg = compose(model, neck, roi_heads, *SIDES, *overrides)
    resolve_dataset(cfg)
    torch.manual_seed(0)
    detector = build_model(cfg).eval()
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if parameter.ndim > 1 and any(part in name for part in ENLARGED):
                parameter.mul_(20)
    return Trained(cfg, detector, Path("untrained.pth"))


def picture(height: int, width: int) -> np.ndarray:
    """Blurred noise, (H, W, 3) uint8."""
    random = np.random.default_rng(height * width)
    cells = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.ascontiguousarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR))
