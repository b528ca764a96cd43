"""Configs that somebody else may have written: resolvers and addresses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from d2timm import ConfigError
from d2timm.config.lazy import parse
from d2timm.config.received import check_resolvers
from d2timm.utils.targets import TRUST


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
