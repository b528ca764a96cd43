"""detectron2's own training loop runs every recipe, without anything of d2timm's training."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import (
    AMPTrainer,
    SimpleTrainer,
    create_ddp_model,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import inference_on_dataset, print_csv_format
from omegaconf import OmegaConf

from d2timm.build import build_on_meta, settle
from d2timm.config import get_config, to_plain

ROOT = Path(__file__).parents[1]


def train_as_detectron2_does(config_file: Path, overrides: list[str]) -> dict[str, dict[str, float]]:
    """The steps of detectron2's tools/lazyconfig_train_net.py."""
    cfg = LazyConfig.load(str(config_file))
    cfg = LazyConfig.apply_overrides(cfg, overrides)
    default_setup(cfg, Namespace(config_file=str(config_file), eval_only=False))

    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    train_loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(model, train_loader, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)

    def test() -> dict[str, dict[str, float]]:
        results = inference_on_dataset(
            model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
        )
        print_csv_format(results)
        return dict(results)

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, test),
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter), period=cfg.train.log_period
            ),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    trainer.train(0, cfg.train.max_iter)
    return test()


RECIPES = ["faster_rcnn_timm.py", "mask_rcnn_timm.py", "retinanet_timm.py"]


def fitting(recipe: str, overrides: list[str]) -> list[str]:
    """The overrides whose keys a recipe has."""
    absent = ("model.proposal_generator", "model.roi_heads") if "retinanet" in recipe else ()
    return [override for override in overrides if not override.startswith(absent)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_without_our_loop(
    recipe: str,
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("d2timm.main", "d2timm.train", "d2timm.build"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    # d2timm's own commands find out that paths mean the set "custom"
    overrides = tiny_overrides(recipe, tmp_path, "data.name=custom", "data.settings.custom.max_iter=2")
    overrides = fitting(recipe, overrides)
    results = train_as_detectron2_does(ROOT / "lazy_configs" / recipe, overrides)
    assert set(results) == ({"bbox", "segm"} if "mask" in recipe else {"bbox"})
    assert (tmp_path / "model_final.pth").is_file()
    assert LazyConfig.load(str(tmp_path / "config.yaml")).train.max_iter == 2


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "lazy_configs").glob("*.py")))
def test_recipe_builds_as_it_is(recipe: str) -> None:
    cfg = get_config(recipe)
    settle(cfg)
    saved = OmegaConf.create(to_plain(cfg))
    states = [{k: v.shape for k, v in build_on_meta(tree).state_dict().items()} for tree in (cfg, saved)]
    assert states[0] == states[1]


def test_recipe_trains_evaluates_and_resumes(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    """By our own commands, where tests of d2timm.main run the others."""
    recipe = "retinanet_timm.py"
    overrides = fitting(recipe, tiny_overrides(recipe, tmp_path))
    command = [sys.executable, str(ROOT / "scripts/lazyconfig_train.py")]
    command += ["--config-file", str(ROOT / "lazy_configs" / recipe)]

    def run(*options: str) -> None:
        subprocess.run([*command, *options[:1], *overrides, *options[1:]], check=True, capture_output=True)

    def iterations() -> list[int]:
        lines = (tmp_path / "metrics.json").read_text().splitlines()
        return [line["iteration"] for line in map(json.loads, lines) if "total_loss" in line]

    run()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("done", 4)
    assert set(result["metrics"]) == {"bbox"}
    assert iterations() == [0, 1, 2, 3]
    run("--resume", "data.settings.custom.max_iter=6")
    assert iterations() == [0, 1, 2, 3, 4, 5]
    run("--eval-only")


def test_retinanet_is_that_of_the_paper() -> None:
    cfg = get_config("retinanet_timm.py")
    settle(cfg)
    assert "roi_heads" not in cfg.model
    model = build_on_meta(cfg)
    assert model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert model.anchor_generator.strides == [8, 16, 32, 64, 128]
    assert model.anchor_generator.num_anchors == [9] * 5
    sizes = instantiate(cfg.model.anchor_generator.sizes)
    expected = [[side * 2 ** (k / 3) for k in range(3)] for side in (32, 64, 128, 256, 512)]
    assert sizes == [pytest.approx(row) for row in expected]
    assert [shape.stride for shape in model.backbone.output_shape().values()] == [8, 16, 32, 64, 128]


def test_no_roi_heads_is_an_option_that_puts_nothing_into_the_tree() -> None:
    file = str(ROOT / "lazy_configs/common/roi_heads/none.py")
    assert LazyConfig.load(file, "roi_heads") is None
    assert "roi_heads" not in LazyConfig.load(file)
