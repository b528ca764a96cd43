"""Check a dataset before training: what is read, corrected or left out.

    d2timm check-data data.train_json=train.json data.train_images=images data.val_share=0.2
    d2timm check-data data.root=FOLDER --output check.json

The keys are those of training. The exit code is 1 if something would stop training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_trust

__all__ = ["add_arguments", "run"]

STOPS = 1  # the exit code if something would stop training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_trust(parser)
    add = parser.add_argument
    add(
        "--config-file",
        default="faster_rcnn_timm.py",
        metavar="FILE",
        help="the config to train: its tasks, anchors and image sizes count (faster_rcnn_timm.py)",
    )
    add("--output", type=Path, default=Path("check.json"), metavar="FILE", help="the findings (check.json)")
    add("--no-duplicates", action="store_true", help="do not look for equal images in both splits")
    add("overrides", nargs="*", metavar="key=value", help="overrides of the config, such as data.root=FOLDER")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..config.build import resolve_dataset
    from ..config.lazy import find_config, load
    from ..config.overrides import apply_overrides
    from ..engine.data_check import DataCheck
    from ..errors import ConfigError
    from ..utils.files import atomic_write
    from ..utils.text import printable

    cfg = apply_overrides(load(find_config(options.config_file)), options.overrides)
    resolve_dataset(cfg)
    check = DataCheck(cfg, duplicates=not options.no_duplicates)
    print(printable(str(check), lines=True))
    try:
        with atomic_write(options.output) as partial:
            partial.write_text(json.dumps(check.content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--output {options.output}: {error.strerror}") from None
    print(f"All samples are listed in {options.output}")
    return STOPS if check.stops else 0
