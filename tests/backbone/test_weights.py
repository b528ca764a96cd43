"""Pretrained weights and files of weights are loaded completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv, save_for_hf
from torch import Tensor

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.spec import extract
from d2timm.backbone.weights import log_loaded

State = Mapping[str, Tensor]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an object with ``torch.save`` and return the path."""

    def write(content: Any, name: str = "weights.pth") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without access to the hub and with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def random_model(model_name: str, **kwargs: Any) -> Any:
    """A timm model with changed weights and statistics."""
    torch.manual_seed(1)
    model = timm.create_model(model_name, **kwargs).eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.is_floating_point():
                x += 0.02 * torch.rand_like(x)
            assert x.is_floating_point() or "num_batches" in name
    return model


def assert_loaded(backbone: TimmBackbone, state: State) -> None:
    loaded = backbone.model.state_dict()
    assert loaded
    assert [name for name, x in loaded.items() if not torch.equal(x, state[name])] == []


def message(error: pytest.ExceptionInfo[ConfigError]) -> str:
    """The text of an error, which must be one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# Files


@pytest.mark.parametrize("model_name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_weights_load_for_any_number_of_classes(model_name: str, classes: int, write: Write) -> None:
    state = random_model(model_name, num_classes=classes).state_dict()
    assert_loaded(TimmBackbone(model_name, checkpoint_path=write(state)), state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{name}": x for name, x in state.items()}},
    ],
    ids=["state_dict", "model", "module."],
)
def test_weights_load_from_training_checkpoints(wrap: Callable[[State], Any], write: Write) -> None:
    state = random_model("test_resnet").state_dict()
    assert_loaded(TimmBackbone("test_resnet", checkpoint_path=write(wrap(state))), state)


def test_weights_load_from_safetensors(tmp_path: Path) -> None:
    state = random_model("test_resnet").state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    assert_loaded(TimmBackbone("test_resnet", checkpoint_path=str(tmp_path / "weights.safetensors")), state)


def test_features_are_those_of_the_saved_model(write: Write) -> None:
    model = random_model("test_vit")
    backbone = TimmBackbone(
        "test_vit", remaps=("level",), strides=(16,), checkpoint_path=write(model.state_dict())
    ).eval()
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(backbone(images)["level"], extract(model, images, (5,))[5])


def test_tensors_of_other_tasks_are_ignored(write: Write) -> None:
    state = random_model("test_resnet").state_dict()
    path = write({**state, "decoder.weight": torch.zeros(3)})
    assert_loaded(TimmBackbone("test_resnet", checkpoint_path=path), state)


def test_new_layers_keep_their_initial_values(write: Write) -> None:
    path = write(random_model("test_vit").state_dict())
    loaded, fresh = TimmBackbone("test_vit", checkpoint_path=path), TimmBackbone("test_vit")
    for name, x in loaded.levels.state_dict().items():
        assert torch.equal(x, fresh.levels.state_dict()[name])


@pytest.mark.parametrize("model_name", ["test_vit", "vit_tiny_patch16_224"])
def test_position_embeddings_of_another_size_are_adapted(model_name: str, write: Write) -> None:
    state = random_model(model_name, img_size=96).state_dict()
    backbone = TimmBackbone(model_name, checkpoint_path=write(state))
    side = backbone.spec.native_size[0] // 16
    assert state["pos_embed"].shape != backbone.model.pos_embed.shape
    prefix = backbone.model.pos_embed.shape[1] - side**2
    expected = resample_abs_pos_embed(state["pos_embed"], (side, side), num_prefix_tokens=prefix)
    assert_loaded(backbone, {**state, "pos_embed": expected})


def test_file_has_priority_over_the_hub(write: Write, no_hub: None) -> None:
    state = random_model("test_resnet").state_dict()
    assert_loaded(TimmBackbone("test_resnet", checkpoint_path=write(state), pretrained=True), state)


# Other channels


@pytest.mark.parametrize("model_name", ["test_resnet", "test_vit", "test_convnext", "test_coatnet"])
@pytest.mark.parametrize("in_chans", [1, 4])
def test_first_layer_is_adapted_to_other_channels(model_name: str, in_chans: int, write: Write) -> None:
    """As timm does for its own weights."""
    state = random_model(model_name).state_dict()
    path = write(state)
    backbone = TimmBackbone(model_name, in_chans=in_chans, checkpoint_path=path)
    first = f"{backbone.model.pretrained_cfg['first_conv']}.weight"
    assert_loaded(backbone, {**state, first: adapt_input_conv(in_chans, state[first])})

    reference = timm.create_model(
        model_name, in_chans=in_chans, pretrained=True, pretrained_cfg_overlay={"file": path}
    )
    assert torch.equal(backbone.model.get_parameter(first), reference.get_parameter(first))


@pytest.mark.parametrize("in_chans", [1, 4])
def test_first_layer_with_matching_channels_is_not_changed(in_chans: int, write: Write) -> None:
    state = random_model("test_resnet", in_chans=in_chans).state_dict()
    assert_loaded(TimmBackbone("test_resnet", in_chans=in_chans, checkpoint_path=write(state)), state)


def test_first_layer_that_cannot_be_adapted(write: Write) -> None:
    """timm can adapt the weights of three channels, but not of five."""
    path = write(random_model("test_resnet", in_chans=5).state_dict())
    with pytest.raises(ConfigError) as error:
        TimmBackbone("test_resnet", in_chans=4, checkpoint_path=path)
    assert f"checkpoint_path={path}" in message(error)


# Log


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """The message that is logged for a file."""
    (record,) = [record for record in caplog.records if record.name == "d2timm.backbone.weights"]
    assert record.levelname == "INFO"
    return record.getMessage()


def test_unused_tensors_are_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = random_model("test_resnet").state_dict()
    path = write({**state, "decoder.weight": torch.zeros(3)})
    backbone = TimmBackbone("test_resnet", checkpoint_path=path)
    used = len(backbone.model.state_dict())
    assert used == len(state) - 2
    text = logged(caplog)
    for fact in (path, f"{used} of {used}", "decoder.weight, fc.bias, fc.weight"):
        assert fact in text


def test_used_tensors_are_not_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = random_model("test_resnet", num_classes=0).state_dict()
    path = write(state)
    TimmBackbone("test_resnet", checkpoint_path=path)
    text = logged(caplog)
    assert path in text
    assert f"{len(state)} of {len(state)}" in text
    assert not any(name in text for name in state)


def test_long_list_of_unused_tensors_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log_loaded("file.pth", [f"x{i:02d}" for i in range(20)], ["x00", "x01"])
    unused = ", ".join(f"x{i:02d}" for i in range(2, 14))
    for fact in ("file.pth", "2 of 2", f"{unused} and 6 more"):
        assert fact in logged(caplog)


# Invalid files


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ConfigError, match="no such file") as error:
            TimmBackbone("test_resnet", checkpoint_path=str(path))
        assert f"checkpoint_path={path}" in message(error)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.bin"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02broken"])
def test_file_without_weights(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        TimmBackbone("test_resnet", checkpoint_path=str(tmp_path / name))
    text = message(error)
    assert f"checkpoint_path={tmp_path / name}" in text
    assert "not a file of weights" in text


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {1: torch.zeros(3)}, torch.zeros(3)], ids=repr)
def test_checkpoint_without_weights(content: Any, write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        TimmBackbone("test_resnet", checkpoint_path=write(content))
    assert "weights.pth" in message(error)


def test_damaged_file(write: Write) -> None:
    state = timm.create_model("test_resnet").state_dict()
    file = Path(write(state))
    content = file.read_bytes()
    place = content.index(state["conv1.0.weight"].numpy().tobytes()) + 10
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ConfigError, match=r"weights\.pth: damaged: the checksum of "):
        TimmBackbone("test_resnet", checkpoint_path=str(file))


class Intruder:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


def test_checkpoint_cannot_run_code(write: Write, tmp_path: Path) -> None:
    path = write({"state_dict": {"conv1.weight": Intruder(tmp_path / "intruded")}})
    with pytest.raises(ConfigError, match=r"not a file of weights \(it holds more") as error:
        TimmBackbone("test_resnet", checkpoint_path=path)
    message(error)
    assert not (tmp_path / "intruded").exists()


@pytest.mark.parametrize(
    ("saved", "model_name"),
    [
        ("test_resnet", "test_vit"),
        ("test_resnet", "resnet18d"),  # the same names but other shapes
        ("test_resnet", "test_convnext"),
        ("test_resnet", "test_efficientnet"),
        ("test_resnet", "poolformer_s12"),
        ("test_resnet", "tnt_s_legacy_patch16_224"),
        ("test_vit", "test_resnet"),
        ("test_vit", "test_vit3"),
        ("test_vit", "swin_tiny_patch4_window7_224"),
    ],
)
def test_checkpoint_of_another_model(saved: str, model_name: str, write: Write) -> None:
    path = write(timm.create_model(saved).state_dict())
    with pytest.raises(ConfigError) as error:
        TimmBackbone(model_name, checkpoint_path=path)
    text = message(error)
    assert f"checkpoint_path={path}" in text
    assert "another model" in text


@pytest.mark.parametrize("name", ["conv1.0.weight", "layer4.0.bn1.running_mean"])
def test_checkpoint_without_one_weight_names_it(name: str, write: Write) -> None:
    state = dict(timm.create_model("test_resnet").state_dict())
    del state[name]
    with pytest.raises(ConfigError) as error:
        TimmBackbone("test_resnet", checkpoint_path=write(state))
    assert name in message(error)


# Pretrained weights


def test_pretrained_weights_load(tmp_path: Path) -> None:
    """From a folder with the layout of the hub, which needs no network."""
    model = random_model("test_resnet")
    save_for_hf(model, tmp_path / "model")
    name = f"local-dir:{tmp_path / 'model'}"
    state = model.state_dict()
    assert_loaded(TimmBackbone(name, pretrained=True), state)
    scratch = TimmBackbone(name).model.state_dict()
    assert not torch.equal(scratch["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_unreachable_hub_names_the_alternatives(no_hub: None) -> None:
    with pytest.raises(ConfigError) as error:
        TimmBackbone("resnet18d", pretrained=True)
    text = message(error)
    for word in ("resnet18d", "checkpoint_path=", "pretrained=False"):
        assert word in text


def test_model_without_weights_names_the_alternatives(no_hub: None) -> None:
    name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(ConfigError, match="timm has no weights") as error:
        TimmBackbone(name, pretrained=True)
    text = message(error)
    for word in (name, "checkpoint_path=", "pretrained=False"):
        assert word in text
