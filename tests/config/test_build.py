"""Detectors and optimizers from a config, and errors before anything is created."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from d2timm import ConfigError
from d2timm.config.build import build_model, build_on_meta, resolve_dataset
from d2timm.config.lazy import get_config, to_plain
from d2timm.config.overrides import apply_overrides
from d2timm.engine.optim import build_optimizer
from d2timm.engine.preflight import check

MASK = "mask_rcnn_timm.py"


@pytest.mark.parametrize("recipe", ["faster_rcnn_timm.py", MASK])
def test_check_builds_on_meta_and_does_not_change_the_config(
    recipe: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    cfg = tiny(recipe, tmp_path / "run")
    before = to_plain(cfg)
    model = check(cfg, ["train", "val"])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert to_plain(cfg) == before
    assert not list(tmp_path.iterdir())


def test_resolve_dataset() -> None:
    cfg = get_config(MASK)
    assert cfg.data.name == "auto"
    resolve_dataset(cfg)
    assert cfg.data.name == "shapes"
    apply_overrides(cfg, ["data.name=auto", "data.val_json=x.json"])
    resolve_dataset(cfg)
    assert cfg.data.name == "custom"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model_name=xcit_smal_12_p8_224", "xcit_smal_12_p8_224.* did you mean .*xcit_small_12_p8_224"),
        ("out_indices=[0,1,2,9]", r"out_indices=\[0, 1, 2, 9\]: .*9.* 5 .*0 to 4"),
        ("remaps=[a,b,b,c]", r"remaps=\['a', 'b', 'b', 'c'\]: "),
        ("remaps=[a,b,c]", "remaps has 3.*strides has 4"),
        ("out_indices=[0,1]", "remaps has 4.*strides has 4.*out_indices has 2"),
        ("strides=[4,8,16,24]", r"strides=\[4, 8, 16, 24\]: .*powers of two"),
        ("strides=[4,8,16]", "remaps has 4.*strides has 3"),
        ("fixed_input_size=[1,2,3]", r"fixed_input_size=.*\(height, width\)"),
        ("timm_kwargs={no_such_option: 1}", "no_such_option"),
    ],
)
def test_wrong_backbone_is_an_error_of_one_line(
    override: str, message: str, tiny: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny(MASK, tmp_path / "run", f"model.backbone.bottom_up.{override}")
    with pytest.raises(ConfigError, match=message) as caught:
        check(cfg, ["train", "val"])
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "only the caller prints the error"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "override",
    [
        "model.backbone.fuse_type=product",
        "+model.backbone.no_such_argument=1",
        "model.roi_heads.box_pooler.pooler_type=crop",
        "model.pixel_mean.model_name='${model.no_such_key}'",
        "model.backbone._target_=torch.nn.NoSuchModule",
    ],
)
def test_model_that_cannot_be_built_is_an_error_of_one_line(
    override: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    cfg = tiny(MASK, tmp_path / "run", override)
    reasons = r"cannot be built: .|NoSuchModule|FPN has no argument|no_such_key"
    with pytest.raises(ConfigError, match=reasons) as caught:
        build_on_meta(cfg)
    assert "\n" not in str(caught.value)


def test_model_for_a_checkpoint_needs_no_pretrained_weights(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("there is no network")

    cfg = tiny(MASK, tmp_path, "model.backbone.bottom_up.pretrained=True")
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: refuse() if k.get("pretrained") else create(*a, **k)
    )
    build_model(cfg, weights=False)
    assert cfg.model.backbone.bottom_up.pretrained is True, "the config is not changed"
    with pytest.raises(ConfigError, match=r"no network.*checkpoint_path=.*pretrained=False"):
        build_model(cfg)


def test_same_seed_gives_the_same_model(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path)
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.detach().flatten() for p in build_model(cfg).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_optimizer_of_the_config(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path, "optimizer.lr=0.25", "optimizer.weight_decay=0.125")
    before = copy.deepcopy(cfg)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    assert cfg == before, "the model does not remain in the config"
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.125}
    optimized = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(optimized) == sorted(id(p) for p in model.parameters())
