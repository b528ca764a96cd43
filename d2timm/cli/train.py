"""Train and evaluate a detector from a LazyConfig file.

    d2timm train --config-file mask_rcnn_timm.py model.backbone.bottom_up.model_name=xcit_small_12_p8_224

FILE is your own config, a saved config.yaml, or the name of a recipe of d2timm. key=value overrides any value
of the config; a path needs no other quotes than those of your shell. To train on your own photographs in COCO
format:

    data.train_json=train.json data.train_images=images data.val_json=val.json data.val_images=images

For several GPUs use --num-gpus or torchrun. The results are in train.output_dir (./output).
"""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_trust

__all__ = ["add_arguments", "add_run_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    config: Any = parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="a .py config or a saved config.yaml"
    )
    config.completer = _complete_configs
    add_run_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the config")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all commands that train share."""
    add_trust(parser)
    add = parser.add_argument
    add("--resume", action="store_true", help="continue from the last checkpoint in train.output_dir")
    add("--eval-only", action="store_true", help="evaluate train.init_checkpoint or the last checkpoint")
    add(
        "--dry-run",
        action="store_true",
        help="build and describe the detector; needs no GPU, weights or data",
    )
    add(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs per machine; processes if it has no GPU (1)",
    )
    add("--num-machines", type=int, default=1, metavar="N", help="number of machines (1)")
    add("--machine-rank", type=int, default=0, metavar="N", help="number of this machine, from 0 (0)")
    add("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0; auto: one machine")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..config.lazy import find_config, load
    from ..config.overrides import apply_overrides
    from ..engine.run import start
    from ..utils.imports import import_quickly
    from ..utils.targets import trusted

    file = find_config(options.config_file)
    if file.suffix == ".py" and file.is_file():
        import_quickly("d2timm.engine.process")  # most of which the config would import, in more time
    cfg = apply_overrides(load(file), options.overrides)
    flags = [f"--trust={package}" for package in trusted()]
    command = ["d2timm", "train", "--config-file", options.config_file, *flags, *options.overrides]
    start(cfg, options, command)
    return 0


def _complete_configs(**_: Any) -> list[str]:
    from ..utils.files import resource_folder

    return [file.name for file in resource_folder("lazy_configs").glob("*.py")]
