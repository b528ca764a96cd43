"""Detectors have the attribute input_format."""

from __future__ import annotations

import pytest

from d2timm.config.build import build_on_meta, resolve_dataset
from d2timm.config.lazy import get_config


@pytest.mark.parametrize(
    "recipe", ["fcos_timm.py", "semantic_fpn_timm.py", "retinanet_timm.py", "panoptic_fpn_timm.py"]
)
@pytest.mark.parametrize(("channels", "expected"), [(3, "RGB"), (1, "L")])
def test_input_format_follows_the_channels(recipe: str, channels: int, expected: str) -> None:
    cfg = get_config(recipe)
    resolve_dataset(cfg)
    cfg.model.backbone.bottom_up.update(model_name="test_efficientnet", in_chans=channels)
    model = build_on_meta(cfg)
    assert model.input_format == expected
    assert len(model.pixel_mean) == channels
