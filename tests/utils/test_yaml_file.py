"""YAML that somebody else may have written: bounds of its size, and tags."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.utils.yaml_file import LARGEST, read_yaml

LEVELS = range(1, 40)
LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in LEVELS)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n" for i in LEVELS)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 50_000,
        "- " * 3000 + "x",
        "&a [*a]",
        "&a {b: *a}",
        LAUGHS,
        MERGES,
        f"a: [{'1,' * LARGEST}]",
    ],
    ids=["lists", "mappings", "items", "cycle", "cycle of mappings", "aliases", "merges", "values"],
)
def test_bombs_are_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"^config\.yaml: not a config"):
        read_yaml(text, "config.yaml")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {file}']",
        "!!python/object/new:os.system ['touch {file}']",
        "a: !!python/name:os.system",
        "a: !!python/module:os",
        "!own {{a: 1}}",
        "a: 2001-99-99",
        "? [1]\n: 2",
        "a: {digits}",
        "a: \0",
        "a: !!binary x",
        "a: [",
        "a: *unknown",
    ],
)
def test_tags_and_broken_texts_are_errors_of_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "executed"
    with pytest.raises(ConfigError, match=r"^config\.yaml: ") as caught:
        read_yaml(text.format(file=file, digits="9" * 5000), "config.yaml")
    assert "\n" not in str(caught.value)
    assert not file.exists()


def test_aliases_of_a_usual_size_are_read() -> None:
    assert read_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 3}}\n", "") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"d": 3},
    }
    assert read_yaml("", "") is None


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_plain_data_is_preserved(tree: Any) -> None:
    assert read_yaml(yaml.safe_dump(tree), "") == tree


@given(st.text())
def test_any_text_is_read_or_a_config_error(text: str) -> None:
    with suppress(ConfigError):
        read_yaml(text, "config.yaml")
