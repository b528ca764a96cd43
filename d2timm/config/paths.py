"""The keys of a config that hold paths, whose values are taken as typed instead of in Hydra's grammar.

In that grammar ``data.root=Photos (1)`` is a syntax error and ``data.root=2024`` a number. Both front-ends
therefore rewrite overrides of these keys, to ``data.root="Photos (1)"`` and ``data.root="2024"``.
"""

from __future__ import annotations

import os
import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..utils.text import one_line

__all__ = ["PATHS", "quote", "quote_paths"]

MODEL_NAME = "model.backbone.bottom_up.model_name"
LOCAL_DIR = "local-dir:"  # in a name of a model, it begins a path
#: Keys that take a path or a list of paths
LISTS = frozenset(f"data.{split}_{kind}" for split in ("train", "val") for kind in ("json", "images"))
#: Keys of folders that a run creates, of which it has one
CREATED = frozenset(
    {
        "dataloader.evaluator.output_dir",
        "train.output_dir",
        "hydra.launcher.submitit_folder",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "hydra.sweep.subdir",
    }
)
#: All keys that hold paths
PATHS = frozenset(
    {
        *LISTS,
        *CREATED,
        "data.root",
        "model.backbone.bottom_up.checkpoint_path",
        MODEL_NAME,
        "train.init_checkpoint",
        "train.init_heads",
    }
)
OVERRIDE = re.compile(r"(\+{0,2})([\w.]+)=(.*)", re.DOTALL)
QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
#: A value in quotes between commas or brackets, or one of these
TOKEN = re.compile(rf"(?:\A|(?<=[,[]))\s*(?:{QUOTED})(?=\s*(?:[],]|\Z))|[][,]", re.DOTALL)
CHOICE = re.compile(r"choice\((.*)\)", re.DOTALL)
#: Other functions of Hydra that give several values
SWEEP = re.compile(r"(glob|interval|range|shuffle|sort|tag)\(.*\)", re.DOTALL)
MOST_COMMAS = 8  # in one of several paths


def quote_paths(override: str, sweep: bool = False) -> str:
    """Rewrite an override of a path so that Hydra reads the value as it was typed.

    A leading ``~`` is expanded. These have the meaning that they have in Hydra: a value in quotes, ``null``,
    ``${…}``, a list ``[a,b]`` for the keys in ``LISTS``, and, in a sweep, several values: ``a,b``,
    ``choice(…)`` and its other functions. A list or several values that exist as one path are that path, and
    folders that a run creates are one path in any case.

    Args:
        override: ``key=value``; others, and those of other keys, are returned as they are.
        sweep: whether the value may be several values.

    Raises:
        ConfigError: the text is not valid Unicode, or has an interpolation that is not valid.
    """
    _check_unicode(override)
    match = OVERRIDE.fullmatch(override)
    if not match or re.sub(r"\.\d+$", "", match[2]) not in PATHS:
        return override
    prefix, key, text = match.groups()
    if key == MODEL_NAME and LOCAL_DIR not in text:
        return override
    pieces = [text]
    if sweep and key not in CREATED and not _exists(text):
        pieces = _several(text)
        if not pieces or (len(pieces) > 1 and "" in pieces):
            return override  # Hydra evaluates the function, or reports a comma too many
    values = [_read(piece, key, override) for piece in pieces]
    if _read_by_hydra(override) == (values if len(values) > 1 else values[0]):
        return override  # keeps names of folders and recorded commands simple
    return f"{prefix}{key}={','.join(map(_write, values))}"


def quote(text: str) -> str:
    """Return a text in Hydra's quotes."""
    return QuotedString(text, Quote.double).with_quotes()


def _check_unicode(override: str) -> None:
    try:
        override.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{override!a}: not valid UTF-8; rename the file or folder") from None


def _read(text: str, key: str, override: str) -> Any:
    """The value that was typed: a path, a list of paths or None."""
    if text == "null":
        return None
    if key in LISTS and text.startswith("[") and text.endswith("]") and not _exists(text):
        items = text[1:-1]
        return [_path(item, override) for item in _split(items)] if items.strip() else []
    return _path(text, override)


def _path(text: str, override: str) -> str:
    if re.fullmatch(QUOTED, text, re.DOTALL):
        text = _read_by_hydra(f"key={text}")
    if "${" in text:
        try:
            OmegaConf.create({"path": text})
        except OmegaConfBaseException:
            raise ConfigError(
                rf"{one_line(override)}: ${{ begins an interpolation, such as ${{key}}; else write \${{"
            ) from None
    return os.path.expanduser(text)


def _several(text: str) -> list[str]:
    """The values of a sweep; none if Hydra has to evaluate a function."""
    if SWEEP.fullmatch(text):
        return []
    if choice := CHOICE.fullmatch(text):
        return _split(choice[1])
    pieces = _split(text)
    return pieces if len(pieces) > 1 else [text]  # one value keeps the blanks around it


def _split(text: str) -> list[str]:
    """Split at commas, except in quotes, in brackets and in paths that exist."""
    ends = [*_commas(text), len(text)]
    pieces, start, first = [], 0, 0
    while first < len(ends):
        last = min(first + MOST_COMMAS, len(ends) - 1)
        while last > first and not _exists(text[start : ends[last]].strip()):
            last -= 1
        pieces.append(text[start : ends[last]].strip())
        start, first = ends[last] + 1, last + 1
    return pieces


def _commas(text: str) -> list[int]:
    """Positions of the commas outside of quotes and, if these are balanced, of brackets."""
    depth, commas = 0, []
    for token in TOKEN.finditer(text):
        depth += {"[": 1, "]": -1}.get(token[0], 0)
        if token[0] == ",":
            commas.append((token.start(), depth))
    return [position for position, inside in commas if not inside or depth]


def _exists(text: str) -> bool:
    return os.path.lexists(os.path.expanduser(text))


def _read_by_hydra(override: str) -> Any:
    """The value of an override, a list for several; ``...`` if Hydra cannot read it.

    Its function choice is such a case, because numbers in quotes lose their quotes in a sweep.
    """
    try:
        parsed = OverridesParser.create().parse_override(override)
    except (HydraException, ValueError, RecursionError):  # too many digits or brackets
        return ...
    value = parsed.value()
    if isinstance(value, ChoiceSweep):
        if not value.simple_form:
            return ...
        return [each.text if isinstance(each, QuotedString) else each for each in value.list]
    return value


def _write(value: Any) -> str:
    if value is None:
        return "null"
    return f"[{','.join(map(quote, value))}]" if isinstance(value, list) else quote(value)
