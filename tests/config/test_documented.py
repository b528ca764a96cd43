"""Every option of every group, and every launcher and sweeper, is in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from d2timm.config.lazy import PLACES
from d2timm.utils.files import resource_folder

DOCS = Path(__file__).parents[2] / "docs"
COMMON = resource_folder("lazy_configs") / "common"
#: Groups whose options are not all listed: any timm name, and one option that holds all keys of training
OPEN = {"backbone", "train"}
OPTIONS = [
    (group, file.stem)
    for group in PLACES
    if group not in OPEN
    for file in sorted((COMMON / group).glob("*.py"))
]
PLUGINS = sorted(resource_folder("conf").glob("hydra/*/*.yaml"))
NAMED_SWEEPS = sorted(resource_folder("conf").glob("sweep/*.yaml"))


def section(page: str, group: str) -> str:
    """The section of a page whose heading names a group."""
    sections = (DOCS / page).read_text().split("\n## ")
    (found,) = (text for text in sections if f"`{group}`" in text.partition("\n")[0])
    return found


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="-".join)
def test_option_is_documented(group: str, option: str) -> None:
    text = section("choices.md", group)
    assert re.search(rf"`({group}=)?{option}`", text), f"docs/choices.md needs a row for {group}={option}"


@pytest.mark.parametrize("file", PLUGINS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_plugin_is_documented(file: Path) -> None:
    text = (DOCS / "sweeps.md").read_text()
    if file.stem == "screen":  # the sweeper behind a named sweep
        assert "+sweep=screen" in text
    else:
        assert f"hydra/{file.parent.name}={file.stem}" in text or f"`{file.stem}`" in text, file


@pytest.mark.parametrize("file", NAMED_SWEEPS, ids=lambda file: file.stem)
def test_named_sweep_is_documented(file: Path) -> None:
    assert f"+sweep={file.stem}" in (DOCS / "sweeps.md").read_text()
