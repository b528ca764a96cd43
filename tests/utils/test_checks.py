"""Suggestions for misspelt values, and the checks of the outputs of a backbone."""

from __future__ import annotations

from typing import Any

import pytest

from d2timm import ConfigError
from d2timm.utils.checks import check_outputs, suggest


def test_suggestions_begin_with_the_most_similar_name() -> None:
    assert suggest("fpm", ["simple", "fpn", "pafpn"]).startswith("did you mean fpn")
    assert "did you mean" not in suggest("zzz", ["fpn", "pafpn"])
    assert "did you mean" not in suggest("a", [])


def test_valid_outputs_are_accepted() -> None:
    check_outputs(["p2"], (4,))
    check_outputs(("p2", "p3"), [4, 8], out_indices=[0, 1])


@pytest.mark.parametrize(
    ("remaps", "strides", "more", "facts"),
    [
        ("res2", [4], {}, ["remaps=res2"]),
        (["res2"], 4, {}, ["strides=4"]),
        (["res2"], [4], {"out_indices": None}, ["out_indices=None"]),
        (["a", "b"], [4], {}, ["remaps has 2", "strides has 1"]),
        (["a"], [4], {"out_indices": [0, 1]}, ["remaps has 1", "out_indices has 2"]),
        ([], [], {}, ["remaps has 0"]),
        (["a", "a"], [4, 8], {}, ["remaps=['a', 'a']"]),
        (["a"], [0], {}, ["strides=[0]", ">= 1"]),
        (["a"], [4.0], {}, ["strides=[4.0]", ">= 1"]),
    ],
)
def test_invalid_outputs_are_rejected(
    remaps: Any, strides: Any, more: dict[str, Any], facts: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        check_outputs(remaps, strides, **more)
    assert all(fact in str(error.value) for fact in facts)
    assert "\n" not in str(error.value)
