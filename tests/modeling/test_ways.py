"""Memory format and compilation change how long a step takes, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch._dynamo.utils import counters
from torch.nn import functional as F

from d2timm.config.build import build_model, instantiate
from d2timm.modeling import ways
from d2timm.modeling.ways import Ways, apply_ways, compiler_is_missing
from d2timm.utils.seeds import seeded

pytestmark = pytest.mark.slow

SIDES = tuple(range(64, 225, 32))
MODELS = ["test_resnet", "test_convnext", "test_vit"]


@pytest.fixture(scope="module")
def cfg(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny("mask_rcnn_timm.py", tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def batch(cfg: Any) -> Any:
    return instantiate(cfg.dataloader.train).batch(0)


def losses(model: Any, batch: Any) -> dict[str, torch.Tensor]:
    with seeded(0), EventStorage():
        result: dict[str, torch.Tensor] = model.train()(batch)
    return result


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured as ever, and run without a compiler."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(ways, "BACKEND", "eager")


def test_ways_survive_a_record_of_another_version() -> None:
    chosen = Ways(channels_last=True)
    assert Ways.from_dict({**chosen.to_dict(), "later": True}) == chosen
    assert Ways.from_dict({}) == Ways()


@pytest.mark.parametrize("chosen", [Ways(channels_last=True), Ways(compile=True), Ways(True, True)])
def test_losses_and_gradients_stay_the_same(cfg: Any, batch: Any, chosen: Ways, eager: None) -> None:
    plain = build_model(cfg)
    other = copy.deepcopy(plain)
    apply_ways(other, chosen, 128)
    results = []
    for model in (plain, other):
        values = losses(model, batch)
        sum(values.values()).backward()  # type: ignore[union-attr]
        results.append((values, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    for expected, actual in zip(*results, strict=True):
        assert list(actual) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=1e-3, atol=1e-5)


def test_state_is_the_same_and_loads(cfg: Any) -> None:
    plain = build_model(cfg)
    other = copy.deepcopy(plain)
    apply_ways(other, Ways(channels_last=True), 128)
    weight = other.get_parameter("backbone.fpn_output2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    state = other.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    plain.load_state_dict(state)
    assert plain.get_parameter("backbone.fpn_output2.weight").is_contiguous()


@pytest.mark.parametrize("model_name", MODELS)
def test_backbone_is_compiled_a_few_times_and_then_never(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_name: str, eager: None
) -> None:
    monkeypatch.setattr(ways, "SIDES", 2)
    cfg = tiny("faster_rcnn_timm.py", tmp_path, f"model.backbone.bottom_up.model_name={model_name}")
    backbone = build_model(cfg).backbone.train()
    expected = copy.deepcopy(backbone)
    holder = torch.nn.Module()
    holder.backbone = backbone
    apply_ways(holder, Ways(compile=True), SIDES[-1])
    generator = torch.Generator().manual_seed(0)
    graphs, sizes = [], set()
    for step in range(50):
        height, width = (SIDES[n] for n in torch.randint(len(SIDES), (2,), generator=generator))
        sizes.add((height, width))
        images = torch.rand(2, 3, height, width, generator=generator)
        maps = backbone(images)
        graphs.append(counters["stats"]["unique_graphs"])
        if step % 10 == 0:
            reference = expected(images)
            assert {name: x.shape for name, x in maps.items()} == {n: x.shape for n, x in reference.items()}
    assert not counters["graph_break"]
    assert graphs[-1] <= 4
    assert len(sizes) > 20


def test_maps_are_those_of_padded_images(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    monkeypatch.setattr(ways, "SIDES", 2)
    cfg = tiny("faster_rcnn_timm.py", tmp_path, "model.backbone.bottom_up.model_name=test_vit")
    plain = build_model(cfg).eval()
    compiled = copy.deepcopy(plain)
    apply_ways(compiled, Ways(compile=True), 128)
    with torch.no_grad():
        for height, width in ((64, 128), (64, 96)):
            images = torch.rand(1, 3, height, width)
            expected = plain.backbone(F.pad(images, (0, 128 - width)))
            for name, x in compiled.backbone(images).items():
                stride = 128 // expected[name].shape[-1]
                assert x.shape[-2:] == (height // stride, -(-width // stride))
                whole = expected[name][..., : x.shape[-1]]
                torch.testing.assert_close(x, whole, rtol=1e-4, atol=1e-5)


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "C++" in str(compiler_is_missing("cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in str(compiler_is_missing("cpu"))
