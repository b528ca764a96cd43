"""From an old config to a LazyConfig file of ours: a short change of one of our recipes."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ...config.build import build_on_meta, instantiate
from ...config.lazy import load
from ...engine.optim import build_optimizer
from ...errors import ConfigError
from ...utils.files import atomic_write
from .account import Account
from .apply import apply_rules, equal, value_at
from .backbone import backbone_settings, model_name
from .parts import Parts, choose_parts
from .read import read
from .rule import Quotient
from .rules import LOST, NEEDLESS, RULES

__all__ = ["Converted", "convert_config", "translate"]

WIDTH = 100  # of the lines that are written
SECTIONS = ("model.backbone", "model", "data", "dataloader", "optimizer", "lr_multiplier", "train")


@dataclass(frozen=True)
class Converted:
    """A config as a file of ours.

    Attributes:
        text: the file.
        account: what has become of each key.
    """

    text: str
    account: Account

    def report(self) -> str:
        """What was converted and what was not, for the screen."""
        number = len(self.account.converted & {*self.account.old.changed, *self.account.old.given})
        lines = [f"converted: {number} keys"]
        for heading, reasons in self.account.told().items():
            if reasons:
                lines.append(f"{heading}:")
                lines += [f"  {key}\n      {why}" for key, why in reasons.items()]
        return "\n".join(lines)


def convert_config(path: Path, out: Path, opts: Sequence[str] = ()) -> Converted:
    """Convert a config into a file.

    Args:
        path: the old config, .yaml.
        out: the file to write, .py, which must not be there yet.
        opts: old keys and values in turn, which come last.

    Raises:
        ConfigError: what is wrong with the old config or the new file; nothing is written then.
    """
    if out.suffix != ".py":
        raise ConfigError(f"{out}: a LazyConfig file ends in .py")
    if out.exists():
        raise ConfigError(f"{out} is there already: give another name")
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: there is no folder {out.parent}")
    converted = translate(path, opts)
    with atomic_write(out) as partial:
        partial.write_text(converted.text)
    return converted


def translate(path: Path, opts: Sequence[str] = ()) -> Converted:
    """Convert a config of detectron2_timm, or of detectron2 with a backbone of timm.

    Args:
        path: the old config, .yaml.
        opts: old keys and values in turn, which come last.

    Raises:
        ConfigError: a config that cannot be read, or that makes no detector here.
    """
    account = Account(read(path, opts))
    name = model_name(account)
    parts = choose_parts(account)
    head = "\n".join(_head(parts))
    tree = _load(head)
    changes: dict[str, Any] = {"data.name": parts.data, "model.backbone.bottom_up.model_name": name}
    _update(tree, changes)
    for key, value in backbone_settings(account, name, parts).items():
        if not equal(value, value_at(tree, key)):
            changes[key] = value
    _update(tree, changes)  # levels, and so anchors, follow from the backbone
    changes |= apply_rules(account, tree)
    _explain(account, name, changes)
    account.settle(NEEDLESS, LOST, [key for rule in RULES for key in rule.old.split()])
    text = "\n".join(_comments(account)) + head + _statements(changes)
    _check(_load(text), parts)
    return Converted(text, account)


def _update(tree: DictConfig, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        OmegaConf.update(tree, key, value, merge=False)


def _head(parts: Parts) -> Iterator[str]:
    """The nodes of which the new config is made."""

    def node(group: str, option: str, key: str) -> str:
        return f'get_config("common/{group}/{option}.py").{key}'

    yield "from d2timm import get_config\n"
    yield f'_cfg = get_config("{parts.recipe}")'
    yield "model, data, dataloader, train = _cfg.model, _cfg.data, _cfg.dataloader, _cfg.train"
    yield f"optimizer = {node('optimizer', parts.optimizer, 'optimizer')}"
    yield f"lr_multiplier = {node('lr_multiplier', parts.lr_multiplier, 'lr_multiplier')}"
    if parts.neck:
        yield f"_neck = {node('neck', parts.neck, 'neck')}"
        yield "_neck.bottom_up = model.backbone.bottom_up"
        yield "model.backbone = _neck"
    if parts.roi_heads:
        yield f"model.roi_heads = {node('roi_heads', parts.roi_heads, 'roi_heads')}"
    yield "\n"


def _explain(account: Account, name: str, changes: Mapping[str, Any]) -> None:
    """What a user should know of values that are not what they seem."""
    old = account.old
    pixels = ("model.input_format", "model.pixel_mean", "model.pixel_std")
    if any(key in changes for key in pixels):
        told = f"{name} is trained otherwise in timm: leave model.input_format, model.pixel_mean and "
        account.note("INPUT.FORMAT", told + "model.pixel_std out to train on from timm's weights")
    clip = "SOLVER.CLIP_GRADIENTS"
    if not old[f"{clip}.ENABLED"]:
        account.needless |= dict.fromkeys((f"{clip}.CLIP_TYPE", f"{clip}.NORM_TYPE"), "nothing is clipped")
    elif old[f"{clip}.CLIP_TYPE"] == "full_model":
        account.convert(f"{clip}.CLIP_TYPE")
    else:
        account.lost[f"{clip}.CLIP_TYPE"] = "optimizer.clip_norm, of all gradients together, stands in"
    if not old["MODEL.WEIGHTS"]:
        account.needless["MODEL.WEIGHTS"] = "it names no file"


def _comments(account: Account) -> Iterator[str]:
    """The top of the file."""
    yield f"# Converted from {' '.join(account.old.name.split())} by scripts/convert_config.py"
    for heading, reasons in account.told().items():
        if reasons and heading != "not needed":
            yield f"#\n# {heading.capitalize()}:"
            for key, why in reasons.items():
                yield from wrap(f"{key}: {why}", WIDTH, initial_indent="#   ", subsequent_indent="#     ")
    yield ""


def _statements(changes: Mapping[str, Any]) -> str:
    """Assignments, those of a part of the tree together."""

    def section(key: str) -> int:
        return next(i for i, name in enumerate(SECTIONS) if f"{key}.".startswith(f"{name}."))

    ordered = sorted(changes, key=section)
    blocks = ("".join(_statement(key, changes[key]) for key in keys) for _, keys in groupby(ordered, section))
    return "\n".join(blocks)


def _statement(key: str, value: Any) -> str:
    path = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in key.split("."))[1:]
    line = f"{path} = {_literal(value)}\n"
    if len(line) <= WIDTH or not isinstance(value, (list, dict)):
        return line
    items = value if isinstance(value, list) else [f"{k}={_literal(v)}" for k, v in value.items()]
    opening, closing = ("[", "]") if isinstance(value, list) else ("dict(", ")")
    told = [item if isinstance(value, dict) else _literal(item) for item in items]
    return f"{path} = {opening}\n" + "".join(f"    {item},\n" for item in told) + f"{closing}\n"


def _literal(value: Any) -> str:
    """A value as Python source."""
    if isinstance(value, Quotient):
        return f"{value.part} / {value.whole}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_literal(item)}' for key, item in value.items())})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _load(text: str) -> DictConfig:
    """The tree of a config that is not a file yet."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.py")
        file.write_text(text)
        return load(file)


def _check(cfg: DictConfig, parts: Parts) -> None:
    """Raise ConfigError unless detector, optimizer and schedule can be built."""
    cfg.data.name = parts.known_data  # for a number of classes: files of the user's own are not named yet
    build_on_meta(cfg)
    build_optimizer(cfg, nn.Linear(1, 1))
    try:
        instantiate(cfg.lr_multiplier)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"SOLVER: the schedule cannot be built: {' '.join(str(error).split())}") from None
