"""The training step: over several batches, in mixed precision and in several processes."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from d2timm import ConfigError
from d2timm.engine.launch import launch
from d2timm.engine.optim import create_optimizer
from d2timm.engine.out_of_memory import out_of_memory_explained
from d2timm.engine.trainer import (
    PRECISIONS,
    NotFiniteError,
    Trainer,
    build_trainer,
)

MASK = "mask_rcnn_timm.py"
CPU_TWO = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")


class Regressor(nn.Module):
    """Two losses of a batch (N, 4), each a mean over the N images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.dtypes: list[torch.dtype] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        predictions = self.layers(images)
        self.dtypes.append(predictions.dtype)
        error = predictions.float() - images[:, :2]
        return {"loss_square": error.square().mean(), "loss_absolute": error.abs().mean()}


def batches(images: int, count: int = 12) -> list[Tensor]:
    """The same 24 images in batches of a size; the first ``count`` batches."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(24, 4, generator=generator).split(images))[:count]


def train(trainer: SimpleTrainer, iterations: int, start: int = 0) -> dict[str, list[float]]:
    """Train; returns the values of each scalar, one per iteration."""
    trainer.start_iter, trainer.max_iter = start, iterations
    with EventStorage(start) as trainer.storage:
        for trainer.iter in range(start, iterations):
            trainer.storage.iter = trainer.iter
            trainer.run_step()
        histories = trainer.storage.histories()
    return {name: [value for value, _ in h.values()] for name, h in histories.items() if "time" not in name}


def make(data: Iterable[Tensor], opt: str = "momentum", clip: float | None = None, **options: Any) -> Trainer:
    model = Regressor()
    optimizer = create_optimizer([{"params": [*model.parameters()]}], opt, 0.1, 0.01, clip_norm=clip)
    return Trainer(model, data, optimizer, **options)


def scale_by(trainer: Trainer, scale: float) -> None:
    """Start with a gradient scale that does not overflow in fp16, because steps that overflow are skipped."""
    scaler = trainer.grad_scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale} if scaler.is_enabled() else {})


def weights(trainer: SimpleTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# Accumulation


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("opt", ["momentum", "adamw"])
def test_accumulated_batches_equal_one_large_batch(opt: str, clip: float | None) -> None:
    """Also with clipping, which applies to the mean gradient and not to that of each batch."""
    parts, large = make(batches(2), opt, clip, accumulate=3), make(batches(6), opt, clip)
    scalars, expected = train(parts, 4), train(large, 4)
    torch.testing.assert_close(weights(parts), weights(large), rtol=1e-5, atol=1e-7)
    assert scalars.keys() == expected.keys() == {"total_loss", "loss_square", "loss_absolute"}
    for name in scalars:
        assert scalars[name] == pytest.approx(expected[name], rel=1e-5)
    if clip:
        unclipped = make(batches(6), opt)
        train(unclipped, 4)
        assert not torch.allclose(weights(unclipped), weights(large)), "gradients exceed the limit"


def test_one_batch_per_step_equals_detectron2() -> None:
    trainer, other = make(batches(4)), make(batches(4))
    reference = SimpleTrainer(other.model, batches(4), other.optimizer)
    assert train(trainer, 5) == train(reference, 5)
    assert torch.equal(weights(trainer), weights(reference))


def test_nonfinite_loss_ends_the_training_before_the_step() -> None:
    data = batches(2)
    data[4] = torch.full((2, 4), torch.nan)  # the second batch of the second step
    trainer = make(data, accumulate=3)
    train(trainer, 1)
    before = weights(trainer)
    with pytest.raises(NotFiniteError, match="at iteration 1: loss"):
        train(trainer, 2, start=1)
    assert torch.equal(weights(trainer), before)


def step_in_two_processes(folder: Path) -> None:
    """Each process gets every other image; counts the exchanges of gradients."""
    rank = torch.distributed.get_rank()
    data = [images[rank::2] for images in batches(4)]
    model = DistributedDataParallel(Regressor())
    exchanged: list[int] = []

    def count(state, bucket):  # torch inspects annotations and rejects strings
        exchanged.append(1)
        return allreduce_hook(None, bucket)

    model.register_comm_hook(None, count)
    optimizer = create_optimizer([{"params": [*model.parameters()]}], "momentum", 0.1, 0.01, clip_norm=0.5)
    trainer = Trainer(model, data, optimizer, accumulate=3)
    train(trainer, 2)
    torch.save({"weights": weights(trainer), "exchanged": len(exchanged)}, folder / f"{rank}.pth")


@pytest.mark.slow
def test_processes_exchange_gradients_once_per_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch(step_in_two_processes, CPU_TWO, tmp_path)
    single = make(batches(12), clip=0.5)
    train(single, 2)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(result["weights"], weights(single), rtol=1e-5, atol=1e-7)
        assert result["exchanged"] == 2


# Precision


@pytest.mark.parametrize(("precision", "dtype"), [*PRECISIONS.items(), (None, torch.float32)])
def test_forward_pass_runs_in_the_precision(precision: str | None, dtype: torch.dtype) -> None:
    mixed, full = make(batches(4), precision=precision), make(batches(4))
    scale_by(mixed, 128.0)
    losses = train(mixed, 5)["total_loss"]
    assert set(mixed.model.dtypes) == {dtype}
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}
    assert losses == pytest.approx(train(full, 5)["total_loss"], rel=0.02)


def test_gradients_in_fp16_are_unscaled_before_they_are_clipped() -> None:
    """Also with torch's fused optimizers, which would unscale in their step, after its hooks."""
    moved = []
    for fused in (False, True):
        model = Regressor()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        groups = [{"params": [*model.parameters()], "weight_decay": 0.0}]
        optimizer = create_optimizer(groups, "momentum", 1.0, clip_norm=0.1, fused=fused)
        trainer = Trainer(model, batches(4), optimizer, precision="fp16")
        scale_by(trainer, 128.0)
        train(trainer, 1)
        moved.append((weights(trainer) - before).norm().item())
    assert moved == pytest.approx([0.1, 0.1], rel=1e-3)


def test_only_fp16_saves_a_gradient_scale() -> None:
    data = batches(4)
    trainers = {precision: make(data, precision=precision) for precision in ("fp16", "bf16", None)}
    for trainer in trainers.values():
        train(trainer, 1)
    states = {precision: trainer.state_dict() for precision, trainer in trainers.items()}
    assert ["grad_scaler" in state for state in states.values()] == [True, False, False]
    states["fp16"]["grad_scaler"]["scale"] = 128.0
    resumed = make(data, precision="fp16")
    resumed.load_state_dict(states["fp16"])
    assert resumed.grad_scaler.get_scale() == 128.0
    for precision, state in itertools.product(trainers, states.values()):
        make(data, precision=precision).load_state_dict(state)  # the precision may have changed


def test_resumed_training_is_exact() -> None:
    data = batches(2)
    full = make(data, accumulate=2, precision="fp16")
    train(full, 6)
    first = make(data[:6], accumulate=2, precision="fp16")
    train(first, 3)
    second = make(data[6:], accumulate=2, precision="fp16")
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    train(second, 6, start=3)
    assert torch.equal(weights(second), weights(full))


# From a config


@pytest.mark.parametrize(
    ("overrides", "accumulate", "precision"),
    [
        ([], 1, None),
        (["train.accumulate=4"], 4, None),
        (["train.amp.enabled=True"], 1, "fp16"),
        (["train.amp.enabled=True", "train.amp.precision=bf16"], 1, "bf16"),
        (["train.amp.precision=bf16"], 1, None),
        (["~train.amp.precision", "~train.accumulate"], 1, None),
        (["train.amp.enabled=True", "~train.amp.precision", "~train.accumulate"], 1, "fp16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_trainer_of_a_config(
    overrides: list[str], accumulate: int, precision: str | None, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Configs of earlier versions lack some keys."""
    model = Regressor()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = build_trainer(tiny(MASK, tmp_path, *overrides).train, model, batches(4), optimizer)
    assert (trainer.accumulate, trainer.precision) == (accumulate, precision)


# Losses that are not finite, and memory


def with_nan(*steps: int) -> list[Tensor]:
    data = batches(4)
    for step in steps:
        data[step] = torch.full((4, 4), torch.nan)
    return data


def test_steps_with_a_loss_that_is_not_finite_are_left_out() -> None:
    trainer = make(with_nan(1, 3), max_skipped=2)
    scalars = train(trainer, 5)
    expected = make([batch for step, batch in enumerate(batches(4)) if step not in (1, 3)])
    assert scalars == train(expected, 3)
    assert torch.equal(weights(trainer), weights(expected))
    assert trainer.state_dict()["skipped"] == 2


def test_too_many_of_them_are_an_error_with_the_values() -> None:
    trainer = make(with_nan(1, 3), max_skipped=1)
    with pytest.raises(NotFiniteError, match=r"at iteration 3: loss_square=nan, .*train\.on_nan") as error:
        train(trainer, 5)
    assert "\n" not in str(error.value)


def test_continued_training_counts_steps_that_were_left_out() -> None:
    trainer = make(with_nan(1), max_skipped=1)
    train(trainer, 2)
    other = make(with_nan(0), max_skipped=1)
    other.load_state_dict(trainer.state_dict())
    with pytest.raises(NotFiniteError):
        train(other, 3, start=2)


def test_batch_that_does_not_fit_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = make(batches(4))
    train(reference, 3)
    for split in (True, False):
        trainer = make(batches(4), split_on_oom=split)
        forward = trainer.model.forward

        def limited(images: Tensor, forward: Any = forward) -> dict[str, Tensor]:
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            result: dict[str, Tensor] = forward(images)
            return result

        trainer.model.forward = limited
        if split:
            assert train(trainer, 3)
            torch.testing.assert_close(weights(trainer), weights(reference))
        else:
            with pytest.raises(torch.OutOfMemoryError):
                train(trainer, 3)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_lack_of_memory_is_explained(error: Exception) -> None:
    cfg = OmegaConf.create({"dataloader": {"train": {"total_batch_size": 16}}, "train": {"accumulate": 2}})
    with pytest.raises(ConfigError, match=r"peak of \d+\.\d GB.*total_batch_size=16.*accumulate=2"):  # noqa: SIM117
        with out_of_memory_explained(cfg):
            raise error
    with pytest.raises(RuntimeError, match="other"), out_of_memory_explained(cfg):
        raise RuntimeError("other")
