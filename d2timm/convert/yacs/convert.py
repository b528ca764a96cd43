"""Convert an old config into a LazyConfig file: one of d2timm's recipes, and the settings that change it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ...config.build import build_on_meta, instantiate
from ...config.compatibility import check_compatibility
from ...config.lazy import load
from ...engine.optim import build_optimizer
from ...errors import ConfigError
from ...utils.files import atomic_write
from ...utils.text import one_line
from .account import Account, apply_rules, set_value
from .backbone import backbone_settings
from .parts import Parts, choose_parts, model_name
from .read import read

__all__ = ["convert_config", "translate"]

WIDTH = 100  # characters in a line of a comment
PIXELS = ("model.input_format", "model.pixel_mean", "model.pixel_std")
CLIP = "SOLVER.CLIP_GRADIENTS"


def convert_config(path: Path, out: Path, opts: Sequence[str] = ()) -> Account:
    """Convert a config into a file.

    Args:
        path: the old config, .yaml.
        out: the file to write, .py; it must not exist.
        opts: alternating old keys and values, which override the file.

    Returns:
        What became of each old key.

    Raises:
        ConfigError: the old config or the path of the new file is invalid; nothing is written then.
    """
    if out.suffix != ".py":
        raise ConfigError(f"{out}: the name of a LazyConfig file ends in .py")
    if out.exists():
        raise ConfigError(f"{out} exists already: give another name")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: the folder {out.parent} does not exist")
    text, account = translate(path, opts)
    with atomic_write(out) as partial:
        partial.write_text(text)
    return account


def translate(path: Path, opts: Sequence[str] = ()) -> tuple[str, Account]:
    """Translate a config of detectron2_timm, or of detectron2 with a timm backbone.

    Args:
        path: the old config, .yaml.
        opts: alternating old keys and values, which override the file.

    Returns:
        The content of the new file, and what became of each old key.

    Raises:
        ConfigError: the config cannot be read, or d2timm cannot build what it describes.
    """
    account = Account(read(path, opts))
    name = model_name(account)
    parts = choose_parts(account)
    head = "\n".join(_head(parts))
    tree = _load(head)
    values = {"data.name": parts.data, "model.backbone.bottom_up.model_name": name}
    for key, value in values.items():
        OmegaConf.update(tree, key, value)
    for key, value in backbone_settings(account, name, parts).items():
        set_value(tree, values, key, value)
    values |= apply_rules(account, tree)
    if pixels := [key for key in PIXELS if key in values]:
        text = (
            f"timm trains {name} with other pixels: remove {', '.join(pixels)} to start from timm's weights"
        )
        account.note("INPUT.FORMAT", text)
    if account.old[f"{CLIP}.ENABLED"] and account.old[f"{CLIP}.CLIP_TYPE"] != "full_model":
        account.not_converted[f"{CLIP}.CLIP_TYPE"] = "optimizer.clip_norm clips the norm of all gradients"
    account.finish()
    text = "\n".join(_comments(account)) + head + _statements(values)
    _check(_load(text), parts)
    return text, account


def _head(parts: Parts) -> Iterator[str]:
    """Lines that assemble the new config from d2timm's nodes."""

    def node(group: str) -> str:
        option = parts.options.get(group)
        return f'get_config("common/{group}/{option}.py").{group}' if option else f"_cfg.{group}"

    yield "from d2timm import get_config\n"
    yield f'_cfg = get_config("{parts.recipe}")'
    yield "model, data, dataloader, train = _cfg.model, _cfg.data, _cfg.dataloader, _cfg.train"
    yield f"optimizer = {node('optimizer')}"
    yield f"lr_multiplier = {node('lr_multiplier')}"
    if "neck" in parts.options:
        yield f"_neck = {node('neck')}"
        yield "_neck.bottom_up = model.backbone.bottom_up"
        yield "model.backbone = _neck"
    if "roi_heads" in parts.options:
        yield f"model.roi_heads = {node('roi_heads')}"
    yield "\n"


def _comments(account: Account) -> Iterator[str]:
    """Comments at the top of the new file."""
    yield f"# Converted from {' '.join(account.old.name.split())} by d2timm convert-config. Keys that it does"
    yield "# not set follow the recipe, except for some defaults of the old format: docs/convert_config.md"
    for heading, reasons in account.sections().items():
        if reasons and heading != "not needed":
            yield f"#\n# {heading.capitalize()}:"
            for key, reason in reasons.items():
                line = f"{account.describe(key)}: {reason}" if reason else account.describe(key)
                yield from wrap(line, WIDTH, initial_indent="#   ", subsequent_indent="#     ")
    yield ""


def _statements(values: Mapping[str, Any]) -> str:
    """Assignments, with an empty line between the nodes of the tree."""
    blocks: dict[str, str] = {}
    for key, value in values.items():
        first, *parts = key.split(".")
        path = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
        blocks[first] = blocks.get(first, "") + f"{first}{path} = {_literal(value)}\n"
    return "\n".join(blocks.values())


def _literal(value: Any) -> str:
    """A value as Python source."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_literal(item)}' for key, item in value.items())})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _load(text: str) -> DictConfig:
    """The tree of a config that is not in a file yet."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.py")
        file.write_text(text)
        return load(file)


def _check(cfg: DictConfig, parts: Parts) -> None:
    """Raise ConfigError unless detector, optimizer and schedule can be built."""
    cfg.data.name = parts.known_data  # determines the number of classes; the user's files are not named yet
    check_compatibility(cfg)
    build_on_meta(cfg)
    build_optimizer(cfg, nn.Linear(1, 1))
    try:
        instantiate(cfg.lr_multiplier)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"SOLVER: the schedule cannot be built: {one_line(error)}") from None
