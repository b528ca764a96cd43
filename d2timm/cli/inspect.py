"""Describe a timm model as a backbone, or list models.

    d2timm inspect convnext_tiny
    d2timm inspect --list 'convnext*' --max-params 12M

Neither needs weights, a GPU or a network, even for giant models. --list reads a table that d2timm ships for
one version of timm; with another version it builds the models, which takes longer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from ..errors import ConfigError
from .arguments import complete_models, image_size, number

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    name: Any = add("name", nargs="?", help="the name of a model: arch, arch.tag, hf-hub:… or local-dir:…")
    name.completer = complete_models
    add("--list", metavar="PATTERN", help="list matching names with their parameters, such as 'convnext*'")
    add(
        "--size", type=image_size, default=(512, 512), help="image size of the costs: 512 (default), 800x1333"
    )
    add("--max-params", type=number, metavar="N", help="with --list: leave out larger models, such as 12M")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if (options.name is None) == (options.list is None):
        raise ConfigError("d2timm inspect: give a model name or --list PATTERN")
    if options.max_params is not None and options.list is None:
        raise ConfigError(f"--max-params {options.max_params} needs --list PATTERN")
    return _describe(options) if options.name else _list(options)


def _describe(options: argparse.Namespace) -> int:
    from ..utils.imports import import_quickly

    import_quickly("d2timm.backbone.description")
    from ..backbone.description import describe, on_meta

    description = describe(on_meta(options.name), options.size)
    print(json.dumps(dataclasses.asdict(description), indent=2) if options.json else description)
    return 0


def _list(options: argparse.Namespace) -> int:
    parameters = _find_models(options.list, options.max_params)
    if options.json:
        print(json.dumps([{"model_name": name, "parameters": n} for name, n in parameters.items()], indent=2))
    else:
        for name, n in parameters.items():
            print(f"{name:48s}{n / 1e6:10.2f} M")
    return 0


def _find_models(pattern: str, max_parameters: int | None) -> dict[str, int]:
    """Name -> parameters of the matching models, from the table or, with another timm, from timm itself."""
    from ..backbone.zoo_table import installed_timm, match_rows, read_rows, table_version
    from ..utils.checks import suggest

    installed = installed_timm()
    if installed in (None, table_version()):
        if not match_rows(pattern):
            names = [row["model_name"] for row in read_rows()]
            raise ConfigError(
                f"--list {pattern!r}: no model of timm {table_version()} matches; {suggest(pattern, names)}"
            )
        return {row["model_name"]: row["parameters"] for row in match_rows(pattern, max_parameters)}
    print(
        f"The table of models describes timm {table_version()}, but timm {installed} is installed: building "
        "each model on the meta device instead.",
        file=sys.stderr,
    )
    from ..backbone.description import find

    return find(pattern, max_parameters)
