"""Overrides on a command line: they are strict, and their errors name the fix."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from helpers.errors import error_message
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from d2timm import ConfigError, get_config
from d2timm.config.lazy import to_plain
from d2timm.config.overrides import apply_overrides

TREE = {
    "model": {"name": "a", "depth": 3, "sizes": [1, 2], "same": "${.depth}", "free": None},
    "train": {"max_iter": 10, "lr": 0.1, "amp": True},
}


def overridden(override: str) -> DictConfig:
    return apply_overrides(OmegaConf.create(TREE), [override])


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.max_iter=20", "train.max_iter", 20),
        ("train.lr=1", "train.lr", 1),
        ("train.lr=1e-3", "train.lr", 1e-3),
        ("train.lr=null", "train.lr", None),
        ("train.max_iter='${model.depth}'", "train.max_iter", 3),
        ("train.amp=false", "train.amp", False),
        ("model.name=b", "model.name", "b"),
        ("model.name=/data/my set/x.json", "model.name", "/data/my set/x.json"),
        ("model.free=1", "model.free", 1),
        ("model.same=4", "model.same", 4),
        ("model.sizes.1=5", "model.sizes", [1, 5]),
        ("model.sizes=[7]", "model.sizes", [7]),
        ("train={lr: 2}", "train", {"lr": 2}),
        ("+train.new=4", "train.new", 4),
        ("+train.hooks.ema=0.9", "train.hooks.ema", 0.9),
        ("++train.new=4", "train.new", 4),
        ("++train.max_iter=20", "train.max_iter", 20),
        ("~train.lr", "train", {"max_iter": 10, "amp": True}),
        ("~model.sizes.0", "model.sizes", [2]),
    ],
)
def test_override_changes_one_value(override: str, key: str, value: Any) -> None:
    cfg = overridden(override)
    assert OmegaConf.select(cfg, key) == value
    assert type(OmegaConf.select(cfg, key)) is type(value) or OmegaConf.is_config(OmegaConf.select(cfg, key))
    group = key.split(".")[0]
    rest = OmegaConf.to_container(cfg)
    assert {k: v for k, v in rest.items() if k != group} == {k: v for k, v in TREE.items() if k != group}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=10", "train has no key 'max_itr'; .*max_iter"),
        ("trian.max_iter=10", "no key 'trian'; .*train"),
        ("train.max_itr=10", r"\(\+train.max_itr=10 adds it\)"),
        ("~train.max_itr", "train has no key 'max_itr'; .*max_iter"),
        ("model.sizes.2=5", "model.sizes has no key '2'"),
        ("model.name.short=b", r"model\.name is 'a' "),
        ("train.max_iter=ten", "train.max_iter is a number.* 10"),
        ("model.same=deep", "model.same is a number.* 3"),
        ("train.amp=ture", "train.amp is true or false"),
        ("train.max_iter=10,20", "train.max_iter=10,20: .*d2timm sweep -m"),
        ("train.max_iter=range(1,3)", "d2timm sweep -m"),
        ("model.name=glob(*)", "d2timm sweep -m"),
        ("train.max_iter", "key=value: .*train.max_iter"),
        ("train max_iter=3", "key=value"),
        ("train.max_iter=${", r"'\{' .* 'train.max_iter=\"\$\{\"'"),
        ("model.name=va(lue", r"'\(' .* 'model.name=\"va\(lue\"'"),
        ("model.name=[1", r"'\['"),
        ("model.name=né", "'é'"),
        ("model.name=it's", r"write 'model.name=\"it'\"'\"'s\"'"),
        ("model.name=x\udce9", "'model.name=x.udce9': not valid UTF-8"),
        ("+model.sizes.x=1", r"\+model.sizes.x=1: "),
        ("+model.sizes.5=1", r"\+model.sizes.5=1: "),
        ("train.max_iter@model=20", "train.max_iter@model=20: "),
        ("train.max_iter=" + "9" * 5000, "train.max_iter=999+: .* digits"),
        ("model.sizes=" + "[" * 500 + "]" * 500, r"model.sizes=\[+: .* brackets"),
        ("model.name=" + "(" * 500, r"model.name=\(+: .* brackets"),
        ("model.name=" + "'" * 5001, "model.name='+: "),
        ("x" * 5000 + "=1", "no key 'xxx"),
    ],
)
def test_bad_override_is_an_error_of_one_line_and_changes_nothing(override: str, message: str) -> None:
    cfg = OmegaConf.create(TREE)
    with pytest.raises(ConfigError, match=message) as caught:
        apply_overrides(cfg, [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert cfg == TREE


@pytest.mark.parametrize("override", ["~train.max_itr", "+model.sizes.5=1"])
def test_error_does_not_suggest_to_add_a_key_that_cannot_be_added(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(override)
    assert "adds it" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
@example("va(lue")
def test_error_shows_an_override_that_is_accepted(value: str) -> None:
    refused = error_message(apply_overrides, OmegaConf.create(TREE), [f"model.name={value}"])
    if refused and "; for a text, write " in refused:
        (quoted,) = shlex.split(refused.partition("; for a text, write ")[2])
        if "${" not in value:
            assert overridden(quoted).model.name == value


@pytest.mark.parametrize("recipe", ["faster_rcnn_timm.py", "mask_rcnn_timm.py"])
def test_override_of_an_unknown_key_of_a_recipe(recipe: str) -> None:
    override = "model.backbone.bottom_up.model_nam=resnet18"
    with pytest.raises(ConfigError, match=r"no key 'model_nam'; .*model_name"):
        apply_overrides(get_config(recipe), [override])


KEYS = st.sampled_from(
    ["model", "name", "depth", "sizes", "same", "train", "lr", "0", "5", "x", "_target_", ""]
)
VALUES = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.text("${}[]()',:.a1 \\\"=~", max_size=12),
    st.sampled_from(["null", "true", "[1,2]", "{a: 1}", "${model.depth}", "choice(1,2)", "int(x)"]),
)
OVERRIDES = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda sign, keys, mark, value: sign + ".".join(keys) + mark + value,
        st.sampled_from(["", "+", "++", "~"]),
        st.lists(KEYS, min_size=1, max_size=3),
        st.sampled_from(["=", "", ":", "@p="]),
        VALUES,
    ),
)


@given(OVERRIDES)
@example("+model.sizes.x=1")
@example("model=${a.b.${")
def test_any_string_is_an_override_or_a_config_error(override: str) -> None:
    cfg = OmegaConf.create(TREE)
    refused = error_message(apply_overrides, cfg, [override])
    if refused is None:
        assert isinstance(yaml.safe_load(yaml.safe_dump(to_plain(cfg))), dict)
    else:
        assert "\n" not in refused
        assert cfg == TREE
