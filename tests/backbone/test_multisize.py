"""Models that accept one image size run at other sizes with the weights of their native size."""

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
from d2timm.backbone.multisize import adapt, find_mismatch

#: Multi-size models -> strides at which their features are not resampled
MODELS = {
    "test_coatnet": (4, 8, 16, 32),  # tables of relative positions, which are interpolated
    "test_vit_relpos": (16,),  # relative positions, which are computed
    "coat_tiny": (4, 8, 16, 32),  # position embeddings, and modules shared by several blocks
    "mvitv2_tiny": (4, 8, 16, 32),  # squares that contain the image
}
SIZE = (64, 96)
TABLE = "relative_position_bias_table"


def perturb(model: nn.Module, seed: int = 1) -> nn.Module:
    """Change all weights and statistics of a model from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for x in model.state_dict().values():
            if x.is_floating_point():
                x += 0.05 * torch.rand(x.shape, generator=generator)
    return model


def timm_model(model_name: str, **kwargs: Any) -> Any:
    """A perturbed model of timm, in eval mode."""
    torch.manual_seed(0)
    return perturb(timm.create_model(model_name, **kwargs)).eval()


def model_for(size: tuple[int, int], native: Any, model_name: str, square: bool = False) -> Any:
    """timm's model for a size, with the weights of ``native`` as timm adapts them."""
    model = timm.create_model(model_name, img_size=(max(size),) * 2 if square else size)
    adapt_weights = sys.modules[type(native).__module__].checkpoint_filter_fn
    model.load_state_dict(adapt_weights(native.state_dict(), model))
    return model.eval()


def features(model: Any, images: Tensor, backbone: TimmBackbone) -> list[Tensor]:
    """The features of timm's model that the outputs of a backbone use."""
    maps = model.forward_intermediates(images, output_fmt="NCHW", intermediates_only=True)
    return [maps[index] for index in backbone.out_indices]


def images_of(size: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2))


def backbone_of(native: Any, **kwargs: Any) -> TimmBackbone:
    """A backbone with the weights of timm's test_coatnet."""
    backbone = TimmBackbone("test_coatnet", **kwargs)
    state = native.state_dict()
    backbone.model.load_state_dict({name: state[name] for name in backbone.model.state_dict()})
    return backbone


def backward(outputs: dict[str, Tensor] | list[Tensor]) -> None:
    maps = outputs.values() if isinstance(outputs, dict) else outputs
    torch.stack([x.square().mean() for x in maps]).sum().backward()


def record_twins(backbone: TimmBackbone) -> list[Any]:
    """A list to which the backbone adds the twins that it creates from now on."""
    twins: list[Any] = []
    assert backbone.multisize is not None
    finish = backbone.multisize.finish

    def record(model: Any) -> Any:
        twins.append(finish(model))
        return twins[-1]

    backbone.multisize.finish = record
    return twins


@pytest.mark.parametrize("model_name", MODELS)
def test_features_are_timms_at_the_native_and_another_size(model_name: str, tmp_path: Path) -> None:
    """With the same file of weights, saved from timm's model."""
    native = timm_model(model_name)
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
        other = features(model_for(SIZE, native, model_name, square), images, backbone)
        for x, expected in zip(outputs.values(), other, strict=True):
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)
    assert all(torch.equal(x, state[name]) for name, x in backbone.model.state_dict().items())


def test_image_is_padded_to_the_next_multiple() -> None:
    backbone = backbone_of(timm_model("test_coatnet")).eval()
    twins = record_twins(backbone)
    with torch.no_grad():
        assert_outputs(backbone(images_of((65, 131))), backbone, 1, (65, 131))
    assert len(twins) == 1
    rows, columns = (96 // 16, 160 // 16)
    assert twins[0].stages[2].blocks[0].attn.rel_pos.window_size == (rows, columns)


# Training


def test_gradients_are_those_of_timms_model_at_the_same_size() -> None:
    """Also for interpolated tables, where <native gradient, v> equals <gradient, interpolated v>."""
    native = timm_model("test_coatnet")
    model = model_for(SIZE, native, "test_coatnet")
    backbone = backbone_of(native).eval()  # without drop paths
    images = images_of(SIZE, batch=2)
    backward(backbone(images))
    backward(features(model, images, backbone))

    direction = perturb(timm_model("test_coatnet"), seed=5).state_dict()
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


def test_changed_weights_apply_to_existing_twins() -> None:
    backbone = backbone_of(timm_model("test_coatnet")).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        before = backbone(images)["res5"]
        for name, parameter in backbone.model.named_parameters():
            if name.endswith(TABLE):
                parameter += torch.rand(parameter.shape, generator=torch.Generator().manual_seed(3))
        assert not torch.allclose(backbone(images)["res5"], before)


def test_unchanged_weights_are_adapted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = TimmBackbone("test_coatnet").eval()
    images = images_of(SIZE)
    calls = []
    monkeypatch.setattr(d2timm.backbone.multisize, "adapt", lambda *args: calls.append(args) or adapt(*args))
    with torch.inference_mode():
        first = backbone(images)["res5"]
        assert torch.equal(backbone(images)["res5"], first)
    assert len(calls) == 1
    for _ in range(2):  # with gradients, each pass needs its own graph
        backbone(images)["res5"].sum().backward()
    assert len(calls) == 3


def test_gradients_are_the_same_with_checkpointing() -> None:
    native = timm_model("test_coatnet")
    plain, checkpointed = (backbone_of(native, grad_checkpointing=use) for use in (False, True))
    images = images_of(SIZE, batch=2)
    for backbone in (plain, checkpointed):
        backward(backbone.eval()(images))
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(checkpointed.get_parameter(name).grad, parameter.grad)


def test_statistics_are_those_of_timms_model_at_the_same_size() -> None:
    native = timm_model("test_coatnet", drop_path_rate=0.0)
    model = model_for(SIZE, native, "test_coatnet").train()
    for module in model.modules():
        if "DropPath" in type(module).__name__:
            module.drop_prob = 0.0
    backbone = backbone_of(native, drop_path_rate=0.0).train()
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


def test_twins_have_the_modes_of_the_model() -> None:
    backbone = backbone_of(timm_model("test_coatnet"), freeze_at=2)
    twins = record_twins(backbone)
    with torch.no_grad():
        for training in (True, False, True):
            backbone.train(training)
            backbone(images_of(SIZE))
            modes = {path: module.training for path, module in backbone.model.named_modules()}
            assert {path: module.training for path, module in twins[0].named_modules()} == modes
    assert (modes["stem"], modes["stages.0"], modes["stages.3"]) == (False, False, True)
    assert len(twins) == 1


@pytest.mark.parametrize("kwargs", [{"freeze_at": 1}, {"norm": "FrozenBN"}, {"freeze": ["stem.*"]}])
def test_frozen_parts_stay_frozen_at_another_size(kwargs: dict[str, Any]) -> None:
    backbone = backbone_of(timm_model("test_coatnet"), **kwargs).train()
    before = backbone.model.stem.norm1.running_mean.clone()
    backward(backbone(images_of(SIZE, batch=2)))
    assert torch.equal(backbone.model.stem.norm1.running_mean, before)
    assert backbone.model.stem.norm1.weight.grad is None
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


# State


def test_twins_are_not_in_the_state() -> None:
    backbone = TimmBackbone("test_coatnet").eval()
    names, size = list(backbone.state_dict()), len(pickle.dumps(backbone))
    parameters = {name: p.shape for name, p in backbone.named_parameters()}
    with torch.no_grad():
        backbone(images_of(SIZE))
    assert list(backbone.state_dict()) == names
    assert {name: p.shape for name, p in backbone.named_parameters()} == parameters
    assert len(pickle.dumps(backbone)) == size


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_backbone_can_be_copied(copied: Callable[[TimmBackbone], TimmBackbone]) -> None:
    backbone = backbone_of(timm_model("test_coatnet")).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        expected = backbone(images)["res5"]
        twin = copied(backbone)
        assert torch.equal(twin(images)["res5"], expected)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not torch.equal(twin(images)["res5"], expected)
        assert torch.equal(backbone(images)["res5"], expected)  # it shares nothing with its copy


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_twins_have_no_weights_and_use_no_random_numbers(device: str) -> None:
    with torch.device(device):
        backbone = TimmBackbone("test_coatnet").eval()
    assert backbone.multisize is not None
    finish, states = backbone.multisize.finish, []

    def record_state(model: Any) -> Any:
        states.extend(model.state_dict().values())
        return finish(model)

    backbone.multisize.finish = record_state
    state = torch.get_rng_state()
    images = images_of(SIZE).to(device)
    with torch.no_grad(), MetaRun() if device == "meta" else nullcontext():
        backbone(images)
    assert states
    assert all(x.is_meta for x in states)
    assert torch.equal(torch.get_rng_state(), state)


def test_twins_of_the_last_sizes_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d2timm.backbone.multisize, "MAX_TWINS", 2)
    backbone = TimmBackbone("test_coatnet").eval()
    twins = record_twins(backbone)
    a, b, c = (32, 32), (32, 64), (64, 64)
    counts = []
    with torch.no_grad():
        for size in (a, a, b, a, c, a, b, backbone.spec.native_size):
            backbone(images_of(size))
            counts.append(len(twins))
    # c replaces b, the least recently used size; the native size needs no twin
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4]


def test_equal_tables_of_blocks_share_memory() -> None:
    backbone = TimmBackbone("test_vit_relpos").eval()
    twins = record_twins(backbone)
    with torch.no_grad():
        backbone(images_of(SIZE))
    (twin,) = twins
    tables = [block.attn.rel_pos.relative_position_index for block in twin.blocks]
    assert len(tables) > 2
    assert len({table.data_ptr() for table in tables}) == 1
    assert tables[0].numel() == (SIZE[0] // 16 * SIZE[1] // 16) ** 2


@pytest.mark.parametrize("model_name", ["test_coatnet", "test_vit_relpos"])
def test_twins_have_the_precision_of_the_model(model_name: str) -> None:
    backbone = TimmBackbone(model_name).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        expected = backbone(images)
        outputs = backbone.double()(images.double())
    for name, x in outputs.items():
        assert x.dtype == torch.float64
        torch.testing.assert_close(x.float(), expected[name], rtol=1e-3, atol=1e-3)


# find_mismatch


@pytest.mark.parametrize(
    ("model_name", "tensor"),
    [
        ("test_coatnet", None),
        ("test_vit_relpos", None),
        ("mixer_s32_224", "blocks.0.mlp_tokens.fc1.weight"),
        ("pit_ti_224", "pos_embed"),
    ],
)
def test_mismatch_names_the_tensor_that_does_not_fit(model_name: str, tensor: str | None) -> None:
    model, other = create_on_meta(model_name), create_on_meta(model_name, img_size=(96, 128))
    mismatch = find_mismatch(model, other)
    assert mismatch is None if tensor is None else str(mismatch).split()[0] == tensor
    assert find_mismatch(model, create_on_meta(model_name)) is None


def test_buffer_that_cannot_be_recomputed_is_a_mismatch() -> None:
    model, other = (create_on_meta("test_coatnet", img_size=size) for size in (160, 96))
    other.stem.register_buffer("table", torch.empty(3, device="meta"), persistent=False)
    assert " stem " in str(find_mismatch(model, other))
