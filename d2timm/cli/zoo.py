"""Show the table of all timm models as backbones.

    d2timm zoo                                              # counts the models of each kind and route
    d2timm zoo 'convnext*' --max-params 30M --sort multiply_adds
    d2timm zoo '*_tiny_*' --kind pyramid --json

Every model provides levels of strides 4, 8, 16 and 32 for images of any size. The kind says which of them the
model has itself: all (pyramid), some (part of a pyramid) or one (one stride). The route says how the model
accepts images of any size.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from ..errors import ConfigError
from .arguments import number

__all__ = ["add_arguments", "run"]

KINDS = ("pyramid", "part of a pyramid", "one stride")
COLUMNS = {
    "model_name": "model",
    "kind": "kind",
    "route": "route",
    "channels": "channels",
    "native_strides": "native strides",
    "parameters": "params (M)",
    "multiply_adds": "multiply-adds at 512x512 (G)",
}
SORT_KEYS = ("model_name", "parameters", "multiply_adds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("pattern", nargs="?", help="show models whose names match, such as 'convnext*'")
    add("--kind", choices=KINDS, help="show models of this kind only")
    add("--max-params", type=number, metavar="N", help="leave out larger models, such as 12M")
    add("--sort", choices=SORT_KEYS, default="model_name", help="column to sort by")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..backbone.zoo_table import installed_timm, match_rows, table_version

    rows = match_rows(options.pattern or "*", options.max_params)
    rows = [row for row in rows if options.kind in (None, row["kind"])]
    rows.sort(key=lambda row: row[options.sort])
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        raise ConfigError(
            f"no model of timm {table_version()} matches these filters; d2timm zoo counts all models"
        )
    filtered = options.pattern or options.kind or options.max_params is not None
    print(_table(rows) if filtered or options.sort != "model_name" else _overview(rows))
    if installed_timm() not in (None, table_version()):
        print(f"\nThis table describes timm {table_version()}; timm {installed_timm()} is installed.")
    return 0


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    cells = [[_cell(key, row[key]) for key in COLUMNS] for row in rows]
    align = ["right" if isinstance(rows[0][key], int) else "left" for key in COLUMNS]
    table: str = tabulate(cells, list(COLUMNS.values()), colalign=align, disable_numparse=True)
    return f"{table}\n\n{len(rows)} models"


def _cell(key: str, value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{number:g}" for number in value)
    if isinstance(value, int):
        return f"{value / (1e6 if key == 'parameters' else 1e9):.2f}"
    return str(value)


def _overview(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    from ..backbone.zoo_table import table_version

    routes = Counter(row["route"].partition(",")[0].partition(" to ")[0] for row in rows)
    kinds = Counter(row["kind"] for row in rows)
    counts = [
        tabulate(counter.most_common(), [heading, "models"])
        for heading, counter in (("kind", kinds), ("route", routes))
    ]
    return "\n\n".join([f"timm {table_version()}: {len(rows)} models, each a backbone", *counts])
