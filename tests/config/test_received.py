"""Configs that somebody else may have written: bounds of their size, tags, and resolvers."""

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
from d2timm.config.lazy import parse
from d2timm.config.received import LARGEST, check_resolvers, read_yaml
from d2timm.utils.targets import TRUST

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


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "a${ oc.env : HOME }",
        "${oc.decode:'[1]'}",
        "${oc.select:a,${oc.env:HOME}}",
        "${oc.select:'${oc.env:HOME}'}",
        "${oc.${part}:HOME}",
        "${${name}:HOME}",
        "${hydra:runtime.cwd}",
        "${oc.deprecated:a}",
        "${oc.create:{a: 1}}",
    ],
)
@pytest.mark.parametrize(
    "tree", [lambda text: {"a": {"b": text}}, lambda text: [1, [text]], lambda text: {text: 1}]
)
def test_resolvers_that_read_more_than_the_config_are_refused(text: str, tree: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.yaml: .*resolver") as caught:
        check_resolvers(tree(text), "config.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["${a}", "${a.b[0]}", "${oc.select:a,null}", "${.a}", "costs 5 $", r"\${oc.env:HOME}", "${oc.env:", "${"],
)
def test_other_texts_are_accepted(text: str) -> None:
    check_resolvers({"a": text}, "config.yaml")


def test_resolver_can_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2TIMM_TEST_FOLDER", "runs")
    text = "train:\n  output_dir: ${oc.env:D2TIMM_TEST_FOLDER}/a\n"
    with pytest.raises(ConfigError, match=rf"oc\.env.*{TRUST}=oc\.env"):
        parse(text, "config.yaml")
    monkeypatch.setenv(TRUST, "oc.env")
    assert parse(text, "config.yaml").train.output_dir == "runs/a"


@pytest.mark.parametrize(
    "value",
    [
        "https://a.org/b.pth",
        " HTTP://a",
        "hf-hub:a/b",
        "hf_hub:a/b",
        "s3://a",
        "detectron2://a",
        "${first}ps://a",
    ],
)
def test_addresses_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for tree in ({"train": {"init_checkpoint": value}}, {"train": {"init_checkpoint": [value]}}):
        text = yaml.safe_dump({**tree, "first": "htt"})
        with pytest.raises(ConfigError, match=r"^config\.yaml: train\.init_checkpoint.*--trust"):
            parse(text, "config.yaml")
    monkeypatch.setenv(TRUST, "https hf")
    with pytest.raises(ConfigError):
        parse(text, "config.yaml")


def test_address_can_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST, "https://a.org/")
    assert parse("a: https://a.org/b.pth", "").a == "https://a.org/b.pth"
    with pytest.raises(ConfigError, match=r"https://b\.org"):
        parse("a: https://b.org/b.pth", "")


def test_names_with_colons_are_no_addresses() -> None:
    tree = {"a": "local-dir:models/b", "c": "C:\\a", "d": "a: b", "e": "${missing}", "f": ["x:y", None, 3]}
    assert parse(yaml.safe_dump(tree), "")["a"] == "local-dir:models/b"


def test_hub_of_timm_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"model": {"timm_kwargs": {"pretrained_cfg": {"hf_hub_id": "someone/model"}}}}
    with pytest.raises(ConfigError, match=r"hf_hub_id=hf-hub:someone/model"):
        parse(yaml.safe_dump(tree), "config.yaml")
    monkeypatch.setenv(TRUST, "hf-hub:someone/")
    assert parse(yaml.safe_dump(tree), "config.yaml")
