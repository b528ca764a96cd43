"""detectron2's own training loop runs every recipe, without anything of d2timm's training."""

from __future__ import annotations

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


@pytest.mark.parametrize("recipe", ["faster_rcnn_timm.py", "mask_rcnn_timm.py"])
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
    results = train_as_detectron2_does(ROOT / "lazy_configs" / recipe, overrides)
    assert set(results) == ({"bbox", "segm"} if "mask" in recipe else {"bbox"})
    assert (tmp_path / "model_final.pth").is_file()
    assert LazyConfig.load(str(tmp_path / "config.yaml")).train.max_iter == 2
