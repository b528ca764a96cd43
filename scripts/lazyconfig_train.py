#!/usr/bin/env python3
"""Train and evaluate a detector from a LazyConfig file.

    python scripts/lazyconfig_train.py --config-file lazy_configs/mask_rcnn_timm.py \\
        model.backbone.bottom_up.model_name=xcit_small_12_p8_224

Any value of the config can be overridden by key=value. Your own photographs in COCO format:

    data.train_json=train.json data.train_images=images data.val_json=val.json data.val_images=images

Several GPUs: --num-gpus, or torchrun. The results are in train.output_dir (./output).
"""

from __future__ import annotations

import argparse
import sys


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="a .py config or a saved config.yaml")
    add("--resume", action="store_true", help="go on from the last checkpoint in train.output_dir")
    add("--eval-only", action="store_true", help="evaluate train.init_checkpoint or the last one")
    add("--dry-run", action="store_true", help="tell what would be built; no GPU, weights or data")
    add("--num-gpus", type=int, default=1, help="GPUs a machine; processes where there are none")
    add("--num-machines", type=int, default=1)
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    add("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0; auto: this machine only")
    add("overrides", nargs="*", metavar="key=value", help="overrides of the config")
    return parser.parse_args(arguments)


def main() -> int:
    """Command line; returns the exit code."""
    options = parse()
    # torch and detectron2 take seconds to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.noise import silence

    silence()
    from d2timm.main import main as run

    try:
        run(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
