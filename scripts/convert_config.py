#!/usr/bin/env python3
"""Convert a yaml config of detectron2_timm into a LazyConfig file.

    python scripts/convert_config.py xcit_small_12_p8_224_fpn.yaml
    python scripts/lazyconfig_train.py --config-file xcit_small_12_p8_224_fpn.py --dry-run

What became of every key is told, and what could not be converted stands at the top of the new file.
Keys that were given on the command line of training are given here as well:

    python scripts/convert_config.py botnet26t_256.yaml \\
        --opts MODEL.BACKBONE.NAME build_botnet26t_256_fpn_backbone
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("old", type=Path, metavar="OLD.yaml", help="a config of detectron2_timm, or of detectron2")
    add("out", type=Path, nargs="?", metavar="OUT.py", help="the file to write; beside OLD.yaml by default")
    add("--opts", nargs="+", default=[], metavar=("KEY", "VALUE"), help="old keys and values in turn")
    options = parser.parse_args(arguments)
    options.out = options.out or options.old.with_suffix(".py")
    return options


def main() -> int:
    """Command line; returns the exit code."""
    options = parse()
    # torch and detectron2 take seconds to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.noise import silence

    silence()
    from d2timm.yacs_config import write

    try:
        converted = write(options.old, options.out, options.opts)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.old} -> {options.out}")
    print(converted.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
