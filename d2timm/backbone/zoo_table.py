"""The table of all timm models as backbones, ``zoo.json``, which needs neither torch nor timm to be read.

``tests/backbone/test_zoo.py`` checks every model and writes it.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["FILE", "Row", "installed_timm", "match_rows", "read_rows", "table_version"]

FILE = Path(__file__).with_name("zoo.json")

#: ``model_name``, ``kind``, ``route``, ``indices``, ``channels``, ``native_strides``, ``parameters`` and
#: ``multiply_adds`` of a model; docs/zoo.md explains them
Row: TypeAlias = dict[str, Any]


def _table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def table_version() -> str:
    """The version of timm that the table describes."""
    return str(_table()["timm"])


def installed_timm() -> str | None:
    """The version of timm that is installed; None: none is."""
    try:
        return version("timm")
    except PackageNotFoundError:
        return None


def read_rows() -> list[Row]:
    """The rows of the table, by name."""
    rows: list[Row] = _table()["models"]
    return rows


def match_rows(pattern: str, most_parameters: int | None = None) -> list[Row]:
    """The rows of models whose names match a pattern, as in a shell.

    Args:
        pattern: such as ``convnext*``.
        most_parameters: leave out larger models.
    """
    rows = [row for row in read_rows() if fnmatchcase(row["model_name"], pattern)]
    return [row for row in rows if most_parameters is None or row["parameters"] <= most_parameters]
