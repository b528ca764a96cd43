"""Types and ranges of the node ``train``; its values and their meanings are in lazy_configs/common/train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from ..utils.bounds import Bounds

__all__ = ["TrainOptions", "last_iteration"]

Count: TypeAlias = Annotated[int, Bounds(at_least=0)]
Positive: TypeAlias = Annotated[int, Bounds(at_least=1)]
Fraction: TypeAlias = Annotated[float, Bounds(above=0, below=1)]
Epochs: TypeAlias = Annotated[float, Bounds(above=0)]


@dataclass
class _Amp:
    enabled: bool
    precision: str


@dataclass
class _Ema:
    enabled: bool
    decay: Annotated[float, Bounds(at_least=0, below=1)]
    warmup: bool


@dataclass
class _Ddp:
    broadcast_buffers: bool
    find_unused_parameters: bool
    fp16_compression: bool
    bf16_compression: bool


@dataclass
class _Checkpointer:
    period: Positive
    max_to_keep: Positive


@dataclass
class _OnNan:
    skip: Count
    go_back: Count
    lr_factor: Fraction


@dataclass
class _Tta:
    enabled: bool
    scales: Sequence[Annotated[float, Bounds(above=0)]]
    flip: bool


@dataclass
class TrainOptions:
    """The node ``train``."""

    output_dir: str
    init_checkpoint: str | None
    init_heads: str | None
    fit_laterals: Count
    max_iter: Positive | None
    epochs: Epochs | Literal["auto"] | None
    budget_hours: Annotated[float, Bounds(above=0)] | None
    recipe: str | None
    accumulate: Positive
    reference_batch_size: Positive | None
    amp: _Amp
    tune: str
    channels_last: bool | None
    compile: bool | None
    fused: bool | None
    ema: _Ema
    ddp: _Ddp
    shard: bool
    checkpointer: _Checkpointer
    eval_period: Count
    eval_epochs: Epochs | None
    on_nan: _OnNan
    split_on_oom: bool
    early_stop: Count
    log_period: Positive
    tta: _Tta
    writers: Sequence[str]
    metric: str | None
    pause_at: Positive | Fraction | None
    cool_down: Annotated[float, Bounds(at_least=0, at_most=1)]
    stop_below_median: Count
    threads: Annotated[int, Bounds(at_least=1, at_most=1024)] | None
    device: str
    seed: Annotated[int, Bounds(below=2**63)]
    cudnn_benchmark: bool


def last_iteration(pause_at: float | None, max_iter: int) -> int:
    """The iteration at which a training ends or pauses.

    Args:
        pause_at: ``train.pause_at``, a number of iterations or a share of the schedule.
        max_iter: length of the schedule in iterations.
    """
    if not pause_at:
        return max_iter
    return min(math.ceil(pause_at * max_iter) if pause_at < 1 else int(pause_at), max_iter)
