"""Types and ranges of values: what fits, and the rule that an error gives."""

from __future__ import annotations

import inspect
import math
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf

from d2timm import ConfigError, get_config
from d2timm.config.overrides import apply_overrides
from d2timm.config.train_options import TrainOptions
from d2timm.data.options import DataOptions, DatasetSettings
from d2timm.utils.bounds import Bounds
from d2timm.utils.undeclared import UNDECLARED
from d2timm.utils.values import check_arguments, check_fields, check_value

Share = Annotated[float, Bounds(above=0, at_most=1)]


@pytest.mark.parametrize(
    ("hint", "good", "bad", "rule"),
    [
        (int, [0, -3], [1.5, 1e3, "1", True, None, [1], math.inf, 10**400], "must be a whole number"),
        (float, [0, 1.5], ["x", False, None, math.nan, -math.inf, {}, 10**400], "must be a number"),
        (bool, [True, False], [0, 1, "true", None], "must be true or false"),
        (str, ["", "x"], [1, None, ["x"]], "must be a text"),
        (int | None, [1, None], ["null", 0.5], "must be a whole number, or null"),
        (Share, [1, 0.1], [0, -0.5, 1.1, math.nan, "1"], "must be a number > 0 and <= 1"),
        (Share | None, [None, 1], [0], "must be a number > 0 and <= 1, or null"),
        (Sequence[int], [[], [1, 2], (3,)], [1, "12", [1.5], None], "must be a list, each a whole number"),
        (Sequence[Share], [[0.5]], [[0.5, 2]], "must be a list, each a number > 0 and <= 1"),
        (tuple[int, int], [[1, 2]], [[1], [1, 2, 3], 1], "must be a list of 2 values"),
        (Literal["skip", "stop"], ["skip"], ["go", 1, None], "must be skip or stop"),
        (Any, [1, None, "x", object()], [], ""),
    ],
)
def test_values(hint: Any, good: list[Any], bad: list[Any], rule: str) -> None:
    for value in good:
        check_value(value, hint, "a.b")
        check_value(OmegaConf.create({"x": value}).x if isinstance(value, list) else value, hint, "a.b")
    for value in bad:
        with pytest.raises(ConfigError) as error:
            check_value(value, hint, "a.b")
        assert str(error.value) == f"a.b={str(value)[:200]}: {rule}"


@dataclass
class Inner:
    size: Share


@dataclass
class Outer:
    inner: Inner
    name: str


def test_fields_of_a_node() -> None:
    check_fields(Outer, OmegaConf.create({"inner": {"size": 1, "other": "x"}, "more": None}), "node")
    with pytest.raises(ConfigError, match=r"^node\.inner\.size=2: must be a number > 0 and <= 1$"):
        check_fields(Outer, OmegaConf.create({"inner": {"size": 2}}), "node")
    with pytest.raises(ConfigError, match=r"^node\.name: .*no_such"):
        check_fields(Outer, OmegaConf.create({"name": "${no_such}"}), "node")


def test_unknown_arguments_get_near_matches() -> None:
    def target(length: int, width: int = 1) -> None: ...

    check_arguments(target, ["length", "width"], {"length": 2}, {}, "a")
    with pytest.raises(
        ConfigError, match=r"^a\.lenght: .*target has no argument 'lenght': did you mean length"
    ):
        check_arguments(target, ["lenght"], {}, {}, "a")
    check_arguments(dict, ["anything"], {}, {}, "a")


def test_defaults_have_the_declared_types(tmp_path: Any) -> None:
    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), ["data.name=shapes"])
    check_fields(TrainOptions, cfg.train, "train")
    assert cfg.train.keys() == TrainOptions.__dataclass_fields__.keys(), "each key is declared"
    check_fields(DataOptions, cfg.data, "data")
    assert cfg.data.keys() == {*DataOptions.__dataclass_fields__, "tasks"}
    for settings in cfg.data.settings.values():
        check_fields(DatasetSettings, settings, "data.settings")
        assert settings.keys() == DatasetSettings.__dataclass_fields__.keys()


@pytest.mark.parametrize("name", UNDECLARED)
def test_arguments_of_other_packages_exist(name: str) -> None:
    target = pkgutil.resolve_name(name)
    assert f"{target.__module__}.{target.__qualname__}" == name, "the module that defines it"
    arguments = set(UNDECLARED[name])
    classes = [target, *target.__subclasses__()]
    assert any(arguments <= inspect.signature(kind).parameters.keys() for kind in classes)


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("train.max_iter=1e3", "a whole number"),
        ("train.max_iter=0", ">= 1"),
        ("train.pause_at=-1", ">= 1"),
        ("train.checkpointer.period=0", ">= 1"),
        ("train.checkpointer.max_to_keep=0", ">= 1"),
        ("train.log_period=0", ">= 1"),
        ("train.log_period=null", "a whole number"),
        ("train.eval_period=-5", ">= 0"),
        ("train.threads=100000", "<= 1024"),
        ("train.epochs=.nan", "> 0"),
        ("train.ema.decay=[0.9]", "< 1"),
        ("train.on_nan.lr_factor=1", "< 1"),
        ("train.output_dir=null", "a text"),
        ("train.seed=0.5", "a whole number"),
        ("optimizer.clip_norm=-1", "> 0"),
        ("optimizer.lr=-0.1", ">= 0"),
        ("optimizer.lr=.inf", "a number"),
        ("optimizer.weight_decay=-1", ">= 0"),
        ("dataloader.train.total_batch_size=0", ">= 1"),
        ("dataloader.train.num_workers=-1", ">= 0"),
        ("dataloader.test.num_workers=99999", "<= 1024"),
        ("data.on_error=ignore", "skip or stop"),
        ("data.name=3", "a text"),
        ("data.val_share=2", "< 1"),
        ("data.max_pixels=0", ">= 1"),
        ("data.images_outside=3", "true or false"),
        ("data.labels={classes: 3}", "a list, each a text"),
        ("data.settings=3", "keys with values"),
        ("data.settings.shapes=3", "keys with values"),
        ("data.settings.shapes.max_size=0", ">= 1"),
        ("data.settings.shapes.warmup=2", "<= 1"),
        ("data.tasks=[boxes]", "bbox or segm"),
        ("optimizer=3", "not a node"),
        ("optimizer={}", "no _target_"),
        ("lr_multiplier=3", "not a node"),
        ("lr_multiplier.warmup_length=1000", "<= 1"),
        ("lr_multiplier.warmup_method=x", "linear or constant"),
        ("dataloader.evaluator=3", "not a node"),
        ("dataloader.train.mapper=null", "not a node"),
        ("dataloader.train.mapper.augmentations=3", "a list"),
        ("dataloader.train.mapper.augmentations=[{_target_: torch.nn.ReLU}]", "cannot transform"),
        ("dataloader.train.mapper.augmentations.0.max_size=0", ">= 1"),
        ("dataloader.test.mapper.augmentations.0.short_edge_length=-5", ">= 0"),
        ("dataloader.test.num_workers='${model}'", "a whole number"),
        ("model.pixel_std=[0,1,1]", "> 0"),
        ("model.proposal_generator.in_features=true", "a list"),
        ("model.proposal_generator.pre_nms_topk.0=0", ">= 1"),
        ("model.proposal_generator.box2box_transform.weights=[1,1,1]", "a list of 4"),
        ("model.proposal_generator.anchor_matcher.thresholds=[2,3]", "<= 1"),
        ("model.roi_heads.box_pooler.sampling_ratio={a: 1}", "a whole number"),
        ("model.roi_heads.positive_fraction=[null]", "a number"),
        ("model.proposal_generator.positive_fraction=inf", "<= 1"),
        ("model.roi_heads.mask_head.conv_dims=[0]", ">= 1"),
        ("train.tta.scales='${train.tta}'", "parent"),
    ],
)
def test_impossible_values_are_refused_before_the_run(
    override: str, rule: str, tmp_path: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    from d2timm.cli import main

    folder = tmp_path / "run"
    arguments = ["data.name=shapes", f"train.output_dir={folder}", override]
    assert main(["train", "--config-file", "mask_rcnn_timm.py", *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    key = override.partition("=")[0].removeprefix("data.")
    assert key.rpartition(".")[2] in line
    assert rule in line
    assert not folder.exists()
