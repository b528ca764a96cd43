"""Nested mappings become flat ones with dotted keys."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from d2timm.utils.trees import flatten


@pytest.mark.parametrize(
    ("tree", "flat"),
    [
        ({}, {}),
        ({"a": 1, "b": {"c": None, "d": {"e": "x"}}}, {"a": 1, "b.c": None, "b.d.e": "x"}),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}),
        ({"a": {}, "b": []}, {"a": {}, "b": []}),
        ({1: {2: 3}}, {"1.2": 3}),
    ],
)
def test_lists_and_empty_mappings_are_leaves(tree: dict[Any, Any], flat: dict[str, Any]) -> None:
    assert flatten(tree) == flat


@pytest.mark.parametrize(
    ("tree", "flat"),
    [
        ({"a": [1, {"b": 2}, [3]]}, {"a.0": 1, "a.1.b": 2, "a.2.0": 3}),
        ({"a": [], "b": {"c": []}, "d": [{}]}, {"a": [], "b.c": [], "d.0": {}}),
        ({"a": (1, 2)}, {"a": (1, 2)}),
    ],
)
def test_lists_as_nodes(tree: dict[str, Any], flat: dict[str, Any]) -> None:
    assert flatten(tree, lists=True) == flat


def test_order_is_kept_and_the_tree_is_not_changed() -> None:
    tree = {"z": {"y": 1, "a": 2}, "b": 3}
    assert list(flatten(tree)) == ["z.y", "z.a", "b"]
    assert tree == {"z": {"y": 1, "a": 2}, "b": 3}


def test_values_of_a_config_keep_their_interpolations() -> None:
    cfg = OmegaConf.create({"a": {"b": "${c}"}, "c": 1})
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    assert flatten(plain) == {"a.b": "${c}", "c": 1}
