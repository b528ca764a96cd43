"""Configs as plain data, and their differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d2timm.report.page.configs import LARGEST, LONGEST, differences, read_config


def read(tmp_path: Path, text: str | bytes) -> dict[str, Any] | None:
    (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(tmp_path)


def test_config_is_flat_and_unresolved(tmp_path: Path) -> None:
    text = "a:\n  b: ${c}\n  e: [1, 2]\nc: ${oc.env:HOME}\n"
    assert read(tmp_path, text) == {"a.b": "${c}", "a.e": [1, 2], "c": "${oc.env:HOME}"}


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {file}']",
        "a: !!python/object/new:os.system ['touch {file}']",
        "- 1",
        "text",
        "",
        "a: [",
        "[" * 5000,
        "a: &a [*a]",
        b"\xff\xfe\x00",
        f"a: {'x' * LARGEST}",
    ],
)
def test_other_files_are_no_configs_and_run_nothing(text: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "executed"
    text = text.replace("{file}", str(file)) if isinstance(text, str) else text
    assert read(tmp_path, text) is None
    assert not file.exists()


def test_missing_file(tmp_path: Path) -> None:
    assert read_config(tmp_path) is None
    (tmp_path / "config.yaml").mkdir()
    assert read_config(tmp_path) is None


def test_differences() -> None:
    configs = [
        ("a", {"same": 1, "lr": 0.1, "train.output_dir": "x", "only": None}),
        ("b", {"same": 1, "lr": 0.2, "train.output_dir": "y"}),
    ]
    assert differences(configs) == {
        "runs": ["a", "b"],
        "keys": ["lr", "only"],
        "values": [["0.1", "null"], ["0.2", None]],
    }
    assert differences(configs[:1]) is None
    assert differences([("a", {"x": 1}), ("b", {"x": 1})]) is None


def test_values_are_texts_of_one_line() -> None:
    found = differences(
        [("a", {"x": "line\n\x1b[31m", "y": "z" * 1000}), ("b", {"x": [1, {"k": "ä"}], "y": ""})]
    )
    assert found
    (x, y), (other, _) = found["values"]
    assert x == "line\\n\\x1b[31m"
    assert len(y) == LONGEST
    assert other == '[1, {"k": "\\u00e4"}]'
