"""Short forms of the names in a leaderboard."""

from __future__ import annotations

from d2timm.report.columns import short_names, shorten


def test_short_names_are_the_values_that_differ() -> None:
    assert short_names(["backbone=resnet18d,neck=fpn", "backbone=vit,neck=fpn"]) == ["resnet18d", "vit"]
    assert short_names(["backbone=vit,neck=fpn"]) == ["vit fpn"]
    assert short_names(["lr=1,wd=2", "lr=2,wd=1"]) == ["1 2", "2 1"]
    assert short_names(["a=1", "b=1", "0"]) == ["a=1", "b=1", "0"]
    assert short_names(["a=1", "a=1,b=2"]) == ["1", "2"]


def test_shorten_keeps_both_ends() -> None:
    assert shorten("abcdefgh", 8) == "abcdefgh"
    assert shorten("abcdefgh", 5) == "ab…gh"
    assert shorten("abcdefgh", -5) == "a…h"
