"""The configs of runs as plain data, and in which keys they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.text import printable
from ...utils.trees import flatten
from ...utils.yaml_file import read_yaml

__all__ = ["differences", "read_config"]

FILE = "config.yaml"
LARGEST = 2**20  # characters of a file that is read
LONGEST = 300  # characters of a value that is shown
ALWAYS = ("train.output_dir",)  # differs without saying anything
MOST = 500  # keys that are shown


def read_config(folder: Path) -> dict[str, Any] | None:
    """Dotted key -> value of the config of a run folder; None if it has none that can be read.

    Nothing in the file is executed or resolved.
    """
    try:
        with (folder / FILE).open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(LARGEST + 1)
        tree = read_yaml(text, FILE) if len(text) <= LARGEST else None
        return flatten(tree) if isinstance(tree, dict) else None
    except (OSError, ConfigError, RecursionError):
        return None


def differences(configs: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """The keys in which configs differ, and their values as text; None if there are none.

    Args:
        configs: label and config of each run.

    Returns:
        ``{"runs": [label, …], "keys": [key, …], "values": [[text or None if the run lacks the key, …], …]}``,
        with a list of values for each run.
    """
    texts = [
        {key: _text(value) for key, value in config.items() if key not in ALWAYS} for _, config in configs
    ]
    keys = sorted(set().union(*texts))
    keys = [key for key in keys if len({own.get(key) for own in texts}) > 1][:MOST]
    if not keys:
        return None
    return {
        "runs": [label for label, _ in configs],
        "keys": [printable(key) for key in keys],
        "values": [[own.get(key) for key in keys] for own in texts],
    }


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")
