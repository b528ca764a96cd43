"""The training step: over several batches, in mixed precision, in several processes."""

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
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from d2timm import ConfigError
from d2timm.engine.launch import launch
from d2timm.engine.optim import create_optimizer
from d2timm.engine.preflight import check_machine
from d2timm.engine.trainer import PRECISIONS, Trainer, build_trainer, check_training

MASK = "mask_rcnn_timm.py"
CPU_TWO = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")


class Regressor(nn.Module):
    """Two losses of a batch (images, 4), each a mean over its images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.dtypes: list[torch.dtype] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        told = self.layers(images)
        self.dtypes.append(told.dtype)
        error = told.float() - images[:, :2]
        return {"loss_square": error.square().mean(), "loss_absolute": error.abs().mean()}


def batches(images: int, count: int = 12) -> list[Tensor]:
    """The same 24 images, in batches."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(24, 4, generator=generator).split(images))[:count]


def train(trainer: SimpleTrainer, iterations: int, start: int = 0) -> dict[str, list[float]]:
    """Train; the scalars of each iteration."""
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
    """Begin with a scale of gradients at which none is too large for fp16; steps with such are left out."""
    scaler = trainer.grad_scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale} if scaler.is_enabled() else {})


def weights(trainer: SimpleTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# Accumulation


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("opt", ["momentum", "adamw"])
def test_batches_of_a_step_are_one_large_batch(opt: str, clip: float | None) -> None:
    """Clipping included: it is the mean gradient that is clipped, not that of each batch."""
    parts, whole = make(batches(2), opt, clip, accumulate=3), make(batches(6), opt, clip)
    told, expected = train(parts, 4), train(whole, 4)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-5, atol=1e-7)
    assert told.keys() == expected.keys() == {"total_loss", "loss_square", "loss_absolute"}
    for name in told:
        assert told[name] == pytest.approx(expected[name], rel=1e-5)
    if clip:
        free = make(batches(6), opt)
        train(free, 4)
        assert not torch.allclose(weights(free), weights(whole)), "a limit that is felt"


def test_one_batch_a_step_is_detectron2s_step() -> None:
    ours, theirs = make(batches(4)), make(batches(4))
    base = SimpleTrainer(theirs.model, batches(4), theirs.optimizer)
    assert train(ours, 5) == train(base, 5)
    assert torch.equal(weights(ours), weights(base))


def test_loss_that_is_not_finite_ends_the_training_before_the_step() -> None:
    data = batches(2)
    data[4] = torch.full((2, 4), torch.nan)  # the second batch of the second step
    trainer = make(data, accumulate=3)
    train(trainer, 1)
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match="iteration=1"):
        train(trainer, 2, start=1)
    assert torch.equal(weights(trainer), before)


def step_in_two_processes(folder: Path) -> None:
    """Each process has every other image; gradients are exchanged once a step."""
    rank = torch.distributed.get_rank()
    data = [images[rank::2] for images in batches(4)]
    model = DistributedDataParallel(Regressor())
    exchanged: list[int] = []

    def count(state, bucket):  # torch reads annotations, and wants none as text
        exchanged.append(1)
        return allreduce_hook(None, bucket)

    model.register_comm_hook(None, count)
    optimizer = create_optimizer([{"params": [*model.parameters()]}], "momentum", 0.1, 0.01, clip_norm=0.5)
    trainer = Trainer(model, data, optimizer, accumulate=3)
    train(trainer, 2)
    torch.save({"weights": weights(trainer), "exchanged": len(exchanged)}, folder / f"{rank}.pth")


@pytest.mark.slow
def test_processes_exchange_gradients_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch(step_in_two_processes, CPU_TWO, tmp_path)
    alone = make(batches(12), clip=0.5)
    train(alone, 2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(found["weights"], weights(alone), rtol=1e-5, atol=1e-7)
        assert found["exchanged"] == 2


# Precision


@pytest.mark.parametrize(("precision", "dtype"), [*PRECISIONS.items(), (None, torch.float32)])
def test_precision_is_that_of_the_forward_pass(precision: str | None, dtype: torch.dtype) -> None:
    mixed, full = make(batches(4), precision=precision), make(batches(4))
    scale_by(mixed, 128.0)
    losses = train(mixed, 5)["total_loss"]
    assert set(mixed.model.dtypes) == {dtype}
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}
    assert losses == pytest.approx(train(full, 5)["total_loss"], rel=0.02)


def test_gradients_in_fp16_are_clipped_at_their_own_scale() -> None:
    """Whoever unscales them: torch's fused optimizers do it in their step, after its hooks."""
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


def test_scale_of_gradients_is_in_the_checkpoint_of_fp16_alone() -> None:
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
        make(data, precision=precision).load_state_dict(state)  # in another precision than before


def test_interrupted_training_goes_on_exactly() -> None:
    data = batches(2)
    whole = make(data, accumulate=2, precision="fp16")
    train(whole, 6)
    first = make(data[:6], accumulate=2, precision="fp16")
    train(first, 3)
    second = make(data[6:], accumulate=2, precision="fp16")
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    train(second, 6, start=3)
    assert torch.equal(weights(second), weights(whole))


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
    """Saved configs of earlier versions have fewer keys."""
    model = Regressor()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = build_trainer(tiny(MASK, tmp_path, *overrides), model, batches(4), optimizer)
    assert (trainer.accumulate, trainer.precision) == (accumulate, precision)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.epochs=3", "train.max_iter=9"], "train.epochs=3 and train.max_iter=9 both say how long"),
        (["train.accumulate=0"], "train.accumulate=0: batches a step, at least 1"),
        (["train.accumulate=1.5"], "train.accumulate=1.5: "),
        (["train.reference_batch_size=0"], "train.reference_batch_size=0: images a step, > 0"),
        (["train.amp.precision=fp8"], "train.amp.precision=fp8: one of fp16, bf16"),
        (["train.amp.enabled=True"], "train.amp.enabled=True needs a GPU: use train.amp.enabled=False, or "),
        (["train.ema.enabled=True", "train.ema.decay=1"], "train.ema.decay=1: 0 <= decay < 1"),
        (["train.early_stop=2", "train.eval_period=0"], "train.early_stop=2 counts evaluations"),
        (["train.metric=AP"], "train.metric=AP: say task/metric, such as bbox/AP"),
        (["train.metric=bbox/"], "train.metric=bbox/: say task/metric"),
        (["train.writers=[wandbb]"], "'wandbb': did you mean wandb?; there are wandb, mlflow"),
        (["optimizer.opt=adamww"], "optimizer.opt='adamww' is not an optimizer of timm"),
        (["optimizer.opt=sgd", "optimizer.betas=[0.9,0.99]"], "optimizer.betas=(0.9, 0.99): sgd takes lr, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_told_before_anything_is_made(
    overrides: list[str], told: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    cfg = tiny(MASK, tmp_path / "run", *overrides)
    with pytest.raises(ConfigError) as error:
        check_machine(cfg, processes=1)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.amp.enabled=True", "train.amp.precision=bf16"],
        ["train.ema.enabled=True", "train.early_stop=2"],
        ["train.early_stop=2", "data.settings.custom.eval_period=0", "train.eval_epochs=1"],
        [f"~train.{key}" for key in ("accumulate", "ema", "early_stop", "writers", "metric", "epochs")],
    ],
    ids=" ".join,
)
def test_what_can_be_passes(overrides: list[str], tiny: Callable[..., Any], tmp_path: Path) -> None:
    check_training(tiny(MASK, tmp_path, *overrides))


@pytest.mark.parametrize(("native", "passes"), [(True, True), (False, False)])
def test_bf16_on_a_gpu_is_for_those_that_have_it(
    native: bool, passes: bool, tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    cfg = tiny(MASK, tmp_path, "train.device=cuda", "train.amp.enabled=True", "train.amp.precision=bf16")
    if passes:
        check_training(cfg)
    else:
        with pytest.raises(ConfigError, match=r"this GPU has none; use train\.amp\.precision=fp16"):
            check_training(cfg)


def test_synchronised_norms_on_the_cpu_are_for_one_process(tiny: Callable[..., Any], tmp_path: Path) -> None:
    synchronised = ("model.backbone.bottom_up.norm=SyncBN", "model.backbone.bottom_up.model_name=resnet10t")
    cfg = tiny(MASK, tmp_path, *synchronised)
    check_machine(cfg, processes=1)
    with pytest.raises(ConfigError, match=r"norm=SyncBN needs GPUs: use .*norm=keep"):
        check_machine(cfg, processes=2)
    check_machine(tiny(MASK, tmp_path), processes=2)
