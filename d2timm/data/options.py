"""Types and ranges of the node ``data``; its values and their meanings are in lazy_configs/common/data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from ..utils.bounds import Bounds

__all__ = ["DataOptions", "DatasetSettings"]

Path: TypeAlias = str | int | float  # a name that is a number is a path as well
Paths: TypeAlias = Path | Sequence[Path] | None
Count: TypeAlias = Annotated[int, Bounds(at_least=0)]
Positive: TypeAlias = Annotated[int, Bounds(at_least=1)]
Share: TypeAlias = Annotated[float, Bounds(at_least=0, at_most=1)]


@dataclass
class DatasetSettings:
    """The node ``data.settings.NAME``, with the values that suit the dataset of that name."""

    pretrained: bool
    train_short_edges: Sequence[Positive]
    test_short_edge: Positive
    max_size: Positive
    crop_size: Positive
    batch_size: Positive
    rois_per_image: Positive
    detections_per_image: Positive
    max_iter: Positive
    lr: Annotated[float, Bounds(at_least=0)]
    warmup: Share
    eval_period: Count
    checkpoint_period: Positive
    workers: Count | Literal["auto"]
    repeat_threshold: Share


@dataclass
class DataOptions:
    """The node ``data``."""

    name: str
    train_json: Paths
    train_images: Paths
    val_json: Paths
    val_images: Paths
    root: Path | None
    val_share: Annotated[float, Bounds(above=0, below=1)] | None
    val_seed: int
    on_error: Literal["skip", "stop"]
    images_outside: bool
    max_pixels: Annotated[float, Bounds(at_least=1)]
    draft_jpegs: bool
    labels: dict[str, Sequence[str]] | None
    settings: dict[str, Any]
