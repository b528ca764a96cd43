#!/usr/bin/env python3
"""Check that every model of timm is a backbone, and write docs/zoo.md and docs/zoo.json.

    python scripts/check_zoo.py                     # all models, on the meta device
    python scripts/check_zoo.py --real              # the smallest of each module, on the CPU, with gradients
    python scripts/check_zoo.py --models 'vit_*'    # some models; nothing is written

A run that was cut off goes on where it was. The exit code is 1 if a model does not keep the contract.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", metavar="PATTERN", help="these only, such as 'convnext*'")
    add("--real", action="store_true", help="forwards and backwards on the CPU")
    add("--jobs", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    add("--docs", type=Path, default=Path("docs"), metavar="DIR", help="where the tables are (docs)")
    add("--state", type=Path, default=Path("output/zoo"), metavar="DIR", help="rows of earlier runs")
    add("--again", action="store_true", help="forget an earlier run")
    return parser.parse_args(arguments)


def main() -> int:
    """Command line; returns the exit code."""
    options = parse()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes beside each other, each on one core
    from d2timm.utils.quiet import silence

    silence()
    import timm

    from d2timm import zoo
    from d2timm.errors import ConfigError

    names = timm.list_models(options.models or "*")
    try:
        if options.real:
            names = zoo.smallest_of_each_module(zoo.read_tables(options.docs), names)
        if not names:
            raise ConfigError(f"--models {options.models!r}: no model of timm {timm.__version__} matches")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    state = options.state / f"{'real' if options.real else 'meta'}.jsonl"
    if options.again:
        state.unlink(missing_ok=True)
    start = time.monotonic()
    rows = zoo.check_all(names, zoo.check_real if options.real else zoo.check, options.jobs, state)
    failed = [row for row in rows if "error" in row]
    seconds = time.monotonic() - start
    print(f"{len(rows) - len(failed)} of {len(rows)} models keep the contract ({seconds:.0f} s)")
    for row in failed:
        print(f"{row['model_name']}: {row['error']}")
    if not failed and not options.real and not options.models:
        options.docs.mkdir(parents=True, exist_ok=True)
        zoo.write_tables(rows, options.docs)
        print(f"{options.docs / 'zoo.md'} and zoo.json are written")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
