"""JSON content with wrong values anywhere, as hand-made and damaged annotation files have it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.reading import read_split
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.formats.base import FolderFormat

NUMBERS = (-1, 0, 2.5, 1e308, float("nan"), 10**30)
WRONG: tuple[Any, ...] = (*NUMBERS, None, True, "", "x", "3", "\0", "a/" * 200, [], [[]], [None], {})

Place = tuple[Any, Any]  # a list or dictionary, and an index or key


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> Any:
    """The content with one to three values replaced or removed."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        if draw(st.booleans()):
            holder[key] = copy.deepcopy(draw(st.sampled_from(WRONG)))  # which may be changed in turn
        else:
            del holder[key]
    return content


def assert_only_config_errors(declared: FolderFormat, root: Path) -> None:
    """Read the training split, which may fail with a ConfigError, and check its content."""
    try:
        found = read_split(declared, root)
    except ConfigError:
        return
    assert json.dumps(found.coco, allow_nan=False)
    images = {image["id"] for image in found.coco["images"]}
    categories = {category["id"] for category in found.coco["categories"]}
    for annotation in found.coco["annotations"]:
        assert annotation["image_id"] in images
        assert annotation["category_id"] in categories
        assert len(annotation["bbox"]) == 4


def _places(content: Any) -> Iterator[Place]:
    if isinstance(content, (dict, list)):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])
