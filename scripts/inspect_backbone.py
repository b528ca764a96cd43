#!/usr/bin/env python3
"""Tell what a timm model gives as a backbone, or which models there are.

    python scripts/inspect_backbone.py convnext_tiny
    python scripts/inspect_backbone.py --list 'convnext*' --max-params 12M

No weights, no GPU and no network are needed, for giant models either.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys


def number(text: str) -> int:
    """``12M``, ``300k``, ``1.1B`` or digits."""
    scale = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower(), 0)
    return int(float(text[:-1]) * scale) if scale else int(float(text))


def image_size(text: str) -> tuple[int, int]:
    """``512`` or ``800x1333``."""
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) > 2 or min(sides) < 32:
        raise ValueError(text)
    return sides[0], sides[-1]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", nargs="?", help="a name of timm: arch, arch.tag, hf-hub:… or local-dir:…")
    add("--list", metavar="PATTERN", help="names that match, such as 'convnext*', with their parameters")
    add("--size", type=image_size, default=(512, 512), help="image for which costs are told: 512, 800x1333")
    add("--max-params", type=number, metavar="N", help="with --list: at most so many parameters, such as 12M")
    add("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if (options.name is None) == (options.list is None):
        parser.error("give a name, or --list PATTERN")
    if options.max_params is not None and options.list is None:
        parser.error("--max-params goes with --list")
    return options


def main() -> int:
    """Command line; returns the exit code."""
    options = parse()
    # torch and timm take seconds to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.noise import silence

    silence()
    from d2timm.describe import describe, find, on_meta

    try:
        if options.name:
            described = describe(on_meta(options.name), options.size)
            print(json.dumps(dataclasses.asdict(described), indent=2) if options.json else described)
            return 0
        found = find(options.list, options.max_params)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([{"model_name": name, "parameters": n} for name, n in found.items()], indent=2))
    else:
        for name, parameters in found.items():
            print(f"{name:48s}{parameters / 1e6:10.2f} M")
    return 0


if __name__ == "__main__":
    sys.exit(main())
