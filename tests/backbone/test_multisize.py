"""Models made for one size run at another with the weights of the size that they were made for."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import assert_outputs
from torch import Tensor, nn

import d2timm.backbone.multisize
from d2timm import TimmBackbone
from d2timm.backbone.meta import MetaRun, create_on_meta
from d2timm.backbone.multisize import adapt, why_not

#: Models with a canvas -> strides at which their features need no resampling
MODELS = {
    "test_coatnet": (4, 8, 16, 32),  # tables of relative positions, which are interpolated
    "test_vit_relpos": (16,),  # relative positions that are computed
    "coat_tiny": (4, 8, 16, 32),  # position embeddings, and modules that several blocks share
    "mvitv2_tiny": (4, 8, 16, 32),  # squares that hold the image
}
SIZE = (64, 96)
TABLE = "relative_position_bias_table"


def other_weights(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model with no weight and no statistic where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for x in model.state_dict().values():
            if x.is_floating_point():
                x += 0.05 * torch.rand(x.shape, generator=generator)
    return model


def of_timm(model_name: str, **kwargs: Any) -> Any:
    """timm's own model, in eval mode."""
    torch.manual_seed(0)
    return other_weights(timm.create_model(model_name, **kwargs)).eval()


def made_for(size: tuple[int, int], native: Any, model_name: str, square: bool = False) -> Any:
    """timm's model for a size, with the weights of another brought to it in timm's way."""
    model = timm.create_model(model_name, img_size=(max(size),) * 2 if square else size)
    convention = sys.modules[type(native).__module__].checkpoint_filter_fn
    model.load_state_dict(convention(native.state_dict(), model))
    return model.eval()


def features(model: Any, images: Tensor, backbone: TimmBackbone) -> list[Tensor]:
    """What timm's model gives for each output of a backbone."""
    maps = model.forward_intermediates(images, output_fmt="NCHW", intermediates_only=True)
    return [maps[index] for index in backbone.out_indices]


def images_of(size: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2))


def same_weights(native: Any, **kwargs: Any) -> TimmBackbone:
    """test_coatnet as a backbone with the weights of timm's model."""
    backbone = TimmBackbone("test_coatnet", **kwargs)
    state = native.state_dict()
    backbone.model.load_state_dict({name: state[name] for name in backbone.model.state_dict()})
    return backbone


def backward(outputs: dict[str, Tensor] | list[Tensor]) -> None:
    maps = outputs.values() if isinstance(outputs, dict) else outputs
    torch.stack([x.square().mean() for x in maps]).sum().backward()


def spy(backbone: TimmBackbone) -> list[Any]:
    """The models that a backbone makes for other sizes from now on."""
    made: list[Any] = []
    assert backbone.multisize is not None
    finish = backbone.multisize.finish

    def kept(model: Any) -> Any:
        made.append(finish(model))
        return made[-1]

    backbone.multisize.finish = kept
    return made


@pytest.mark.parametrize("model_name", MODELS)
def test_features_are_those_of_timm_at_the_native_size_and_at_another(
    model_name: str, tmp_path: Path
) -> None:
    """With one file of weights, saved from timm's model."""
    native = of_timm(model_name)
    weights = tmp_path / "weights.pth"
    torch.save(native.state_dict(), weights)
    strides = MODELS[model_name]
    names = [f"level{stride}" for stride in strides]
    backbone = TimmBackbone(model_name, remaps=names, strides=strides, checkpoint_path=str(weights)).eval()
    assert backbone.spec.input_spec.route == "multi-size"

    state = native.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in backbone.model.state_dict().items())

    reference = timm.create_model(
        model_name,
        features_only=True,
        out_indices=sorted(backbone.out_indices),
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights)},
    ).eval()
    square = backbone.spec.input_spec.multisize == "square"
    with torch.no_grad():
        images = images_of(backbone.spec.native_size)
        for x, expected in zip(backbone(images).values(), reference(images), strict=True):
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)
        images = images_of(SIZE)
        outputs = backbone(images)
        assert_outputs(outputs, backbone, 1, SIZE)
        other = features(made_for(SIZE, native, model_name, square), images, backbone)
        for x, expected in zip(outputs.values(), other, strict=True):
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)
    assert all(torch.equal(x, state[name]) for name, x in backbone.model.state_dict().items())


def test_image_between_the_sizes_is_padded_to_the_next() -> None:
    backbone = same_weights(of_timm("test_coatnet")).eval()
    made = spy(backbone)
    with torch.no_grad():
        assert_outputs(backbone(images_of((65, 131))), backbone, 1, (65, 131))
    assert len(made) == 1
    rows, columns = (96 // 16, 160 // 16)
    assert made[0].stages[2].blocks[0].attn.rel_pos.window_size == (rows, columns)


# Training


def test_gradients_are_those_of_timms_model_at_that_size() -> None:
    """Of the tables that are interpolated, too: <native gradient, v> is <gradient, interpolated v>."""
    native = of_timm("test_coatnet")
    model = made_for(SIZE, native, "test_coatnet")
    backbone = same_weights(native).eval()  # the mode without drop paths
    images = images_of(SIZE, batch=2)
    backward(backbone(images))
    backward(features(model, images, backbone))

    direction = other_weights(of_timm("test_coatnet"), seed=5).state_dict()
    moved = adapt(direction, model)
    tables = 0
    for name, parameter in backbone.model.named_parameters():
        expected = model.get_parameter(name).grad
        assert parameter.grad is not None, name
        if parameter.shape == expected.shape:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4)
        else:
            tables += 1
            assert name.endswith(TABLE)
            assert parameter.grad.any()
            along, expected = (parameter.grad * direction[name]).sum(), (expected * moved[name]).sum()
            torch.testing.assert_close(along, expected, rtol=1e-3, atol=1e-4)
    assert tables == 3


def test_an_optimizer_step_is_seen_at_sizes_that_ran_before() -> None:
    backbone = same_weights(of_timm("test_coatnet")).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        before = backbone(images)["res5"]
        for name, parameter in backbone.model.named_parameters():
            if name.endswith(TABLE):
                parameter += torch.rand(parameter.shape, generator=torch.Generator().manual_seed(3))
        assert not torch.allclose(backbone(images)["res5"], before)


def test_weights_are_brought_to_a_size_once_while_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = TimmBackbone("test_coatnet").eval()
    images = images_of(SIZE)
    calls = []
    monkeypatch.setattr(d2timm.backbone.multisize, "adapt", lambda *args: calls.append(args) or adapt(*args))
    with torch.inference_mode():
        first = backbone(images)["res5"]
        assert torch.equal(backbone(images)["res5"], first)
    assert len(calls) == 1
    for _ in range(2):  # with gradients, each pass has a graph of its own
        backbone(images)["res5"].sum().backward()
    assert len(calls) == 3


def test_gradients_are_the_same_with_checkpoints() -> None:
    native = of_timm("test_coatnet")
    plain, checkpointed = (same_weights(native, grad_checkpointing=use) for use in (False, True))
    images = images_of(SIZE, batch=2)
    for backbone in (plain, checkpointed):
        backward(backbone.eval()(images))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(checkpointed.get_parameter(name).grad, parameter.grad)


def test_statistics_are_those_of_training_at_that_size() -> None:
    native = of_timm("test_coatnet", drop_path_rate=0.0)
    model = made_for(SIZE, native, "test_coatnet").train()
    for module in model.modules():
        if "DropPath" in type(module).__name__:
            module.drop_prob = 0.0
    backbone = same_weights(native, drop_path_rate=0.0).train()
    before = {name: x.clone() for name, x in backbone.model.named_buffers() if "running" in name}
    images = images_of(SIZE, batch=2)
    with torch.no_grad():
        backbone(images)
        features(model, images, backbone)
    assert before
    for name, x in before.items():
        after = backbone.model.get_buffer(name)
        assert not torch.equal(after, x), name
        torch.testing.assert_close(after, model.get_buffer(name), rtol=1e-4, atol=1e-5)
    assert backbone.model.stem.norm1.num_batches_tracked == 1


def test_modes_carry_over() -> None:
    backbone = same_weights(of_timm("test_coatnet"), freeze_at=2)
    made = spy(backbone)
    with torch.no_grad():
        for training in (True, False, True):
            backbone.train(training)
            backbone(images_of(SIZE))
            modes = {path: module.training for path, module in backbone.model.named_modules()}
            assert {path: module.training for path, module in made[0].named_modules()} == modes
    assert (modes["stem"], modes["stages.0"], modes["stages.3"]) == (False, False, True)
    assert len(made) == 1


@pytest.mark.parametrize("kwargs", [{"freeze_at": 1}, {"norm": "FrozenBN"}, {"freeze": ["stem.*"]}])
def test_what_is_frozen_stays_at_another_size(kwargs: dict[str, Any]) -> None:
    backbone = same_weights(of_timm("test_coatnet"), **kwargs).train()
    before = backbone.model.stem.norm1.running_mean.clone()
    backward(backbone(images_of(SIZE, batch=2)))
    assert torch.equal(backbone.model.stem.norm1.running_mean, before)
    assert backbone.model.stem.norm1.weight.grad is None
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


# What is kept


def test_nothing_of_other_sizes_is_in_the_state() -> None:
    backbone = TimmBackbone("test_coatnet").eval()
    names, size = list(backbone.state_dict()), len(pickle.dumps(backbone))
    parameters = {name: p.shape for name, p in backbone.named_parameters()}
    with torch.no_grad():
        backbone(images_of(SIZE))
    assert list(backbone.state_dict()) == names
    assert {name: p.shape for name, p in backbone.named_parameters()} == parameters
    assert len(pickle.dumps(backbone)) == size


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_can_be_copied(copied: Callable[[TimmBackbone], TimmBackbone]) -> None:
    backbone = same_weights(of_timm("test_coatnet")).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        expected = backbone(images)["res5"]
        twin = copied(backbone)
        assert torch.equal(twin(images)["res5"], expected)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(twin(images)["res5"], expected)
        assert torch.equal(backbone(images)["res5"], expected)  # which shares nothing with its copy


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_other_sizes_take_no_weights_and_no_random_numbers(device: str) -> None:
    """On a device, and in a run for shapes."""
    with torch.device(device):
        backbone = TimmBackbone("test_coatnet").eval()
    assert backbone.multisize is not None
    finish, states = backbone.multisize.finish, []

    def without_numbers(model: Any) -> Any:
        states.extend(model.state_dict().values())
        return finish(model)

    backbone.multisize.finish = without_numbers
    state = torch.get_rng_state()
    images = images_of(SIZE).to(device)
    with torch.no_grad(), MetaRun() if device == "meta" else nullcontext():
        backbone(images)
    assert states
    assert all(x.is_meta for x in states)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_for_each_of_the_last_sizes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d2timm.backbone.multisize, "MOST_TWINS", 2)
    backbone = TimmBackbone("test_coatnet").eval()
    made = spy(backbone)
    a, b, c = (32, 32), (32, 64), (64, 64)
    counts = []
    with torch.no_grad():
        for size in (a, a, b, a, c, a, b, backbone.spec.native_size):
            backbone(images_of(size))
            counts.append(len(made))
    # b is the one that was used least lately when c comes; the native size needs none
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4]


def test_equal_tables_of_blocks_are_one() -> None:
    backbone = TimmBackbone("test_vit_relpos").eval()
    made = spy(backbone)
    with torch.no_grad():
        backbone(images_of(SIZE))
    (twin,) = made
    tables = [block.attn.rel_pos.relative_position_index for block in twin.blocks]
    assert len(tables) > 2
    assert len({table.data_ptr() for table in tables}) == 1
    assert tables[0].numel() == (SIZE[0] // 16 * SIZE[1] // 16) ** 2


@pytest.mark.parametrize("model_name", ["test_coatnet", "test_vit_relpos"])
def test_numbers_of_another_precision(model_name: str) -> None:
    backbone = TimmBackbone(model_name).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        expected = backbone(images)
        outputs = backbone.double()(images.double())
    for name, x in outputs.items():
        assert x.dtype == torch.float64
        torch.testing.assert_close(x.float(), expected[name], rtol=1e-3, atol=1e-3)


# Whether weights serve


@pytest.mark.parametrize(
    ("model_name", "reason"),
    [
        ("test_coatnet", None),
        ("test_vit_relpos", None),
        ("mixer_s32_224", "blocks.0.mlp_tokens.fc1.weight is of that size only"),
        ("pit_ti_224", "pos_embed is of that size only"),
    ],
)
def test_weights_that_serve_another_size(model_name: str, reason: str | None) -> None:
    model, other = create_on_meta(model_name), create_on_meta(model_name, img_size=(96, 128))
    assert why_not(model, other) == reason
    assert why_not(model, create_on_meta(model_name)) is None


def test_a_table_that_nothing_can_make_again_serves_no_other_size() -> None:
    model, other = (create_on_meta("test_coatnet", img_size=size) for size in (160, 96))
    other.stem.register_buffer("table", torch.empty(3, device="meta"), persistent=False)
    assert why_not(model, other) == "tables of stem cannot be made again"
