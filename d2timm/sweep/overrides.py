"""The arguments of Hydra: they are checked, and Hydra's groups are filled, before Hydra composes them.

Nothing here imports torch, so a mistake is reported at once.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import hydra
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString, RangeSweep

from ..config.groups import read_nodes
from ..config.overrides import check_type, parse_override
from ..config.paths import quote_paths
from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.files import resource_folder
from .hydra_groups import ANY, BACKBONE, replace_launchers, store_backbones, store_groups
from .jobs import PAUSE

__all__ = ["CONF", "CONFIG", "prepare"]

CONF = resource_folder("conf").resolve()  # configs of Hydra: its defaults, named sweeps, launchers, sweepers
CONFIG = "config"
SWEEP_FLAGS = ("-m", "--multirun")
SWEEP_KEYS = re.compile(r"\+*(sweep|hydra\.mode)=")  # overrides that can start a sweep as well
BUDGETS = ("budget", "budget_hours")  # of a screening
BACKBONES = (BACKBONE, f"{BACKBONE}s")  # the latter: of a screening
HYDRA_HELP = "--hydra-help"
RERUN = "--experimental-rerun"
COMPLETION = ("-sc", "--shell-completion")
#: Flags that make Hydra print something instead of running a job
PRINT_FLAGS = ("-c", "--cfg", "-i", "--info", *COMPLETION)


def prepare(arguments: Sequence[str]) -> list[str]:
    """Check the arguments of Hydra and fill its groups.

    Returns:
        The arguments for Hydra, flags first, because Hydra accepts overrides only in one piece.

    Raises:
        ConfigError: an argument is wrong.
    """
    if any(text.partition("=")[0] == RERUN for text in arguments):
        raise ConfigError(
            f"{RERUN} reads a pickle, which can run code: the result.json of a run has its command"
        )
    if HYDRA_HELP in arguments:
        return list(arguments)  # it lists Hydra's own groups, for a minute if ours are among them
    nodes = read_nodes()
    store_groups(nodes)
    replace_launchers(CONF / "hydra")
    is_sweep = any(flag in arguments for flag in SWEEP_FLAGS) or any(map(SWEEP_KEYS.match, arguments))
    arguments = [quote_paths(text, is_sweep) if _is_override(text) else text for text in arguments]
    overrides = _parse(arguments)
    for override in overrides:
        _check_form(override, nodes.options, is_sweep)
        _check_values(override, {**nodes.options, **{key: [ANY, *nodes.names] for key in BACKBONES}})
    store_backbones(_check_backbones(overrides, {ANY, *nodes.names}, is_sweep))
    for override in overrides:
        _check_installed(override)
    _check_types(overrides, nodes.options)
    arguments = sorted(arguments, key=_is_override)
    if any(flag in arguments for flag in PRINT_FLAGS):
        return arguments
    excluded = ",".join(map(repr, _keys_without_name(overrides)))
    return [*arguments, f"hydra.job.config.override_dirname.exclude_keys=[{excluded}]"]


def _keys_without_name(overrides: Sequence[Override]) -> list[str]:
    """The keys that the names of a sweep's run folders leave out.

    These are the keys of the values that all runs share, and those that change while the folder stays the
    same: the iteration at which a run pauses and, if it follows from a budget, the length of the schedule.
    """
    swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
    fixed = [override.key_or_group for override in overrides if not override.is_sweep_override()]
    screens = any(override.key_or_group in BUDGETS for override in overrides)
    length = ["train.max_iter", "train.budget_hours", "train.cool_down"] if screens else []
    return [PAUSE, *length, *(key for key in fixed if not key.startswith("hydra") and key not in swept)]


def _parse(arguments: Sequence[str]) -> list[Override]:
    if any(flag in arguments for flag in COMPLETION):
        return []  # the values of these flags look like overrides
    return [parse_override(text) for text in arguments if _is_override(text)]


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _check_form(override: Override, groups: Iterable[str], is_sweep: bool) -> None:
    """Raise ConfigError for several values without a sweep, and for a group whose value is not a name."""
    text, key = override.input_line, override.key_or_group
    if override.is_sweep_override():
        if not is_sweep:
            raise ConfigError(f"{text}: several values need a sweep; add -m")
    elif key in groups or key.startswith("hydra/"):
        value = override.value()
        names = value if isinstance(value, list) else [value]
        if not override.is_delete() and not (names and all(isinstance(n, str) and n for n in names)):
            raise ConfigError(f"{text}: the value of {key} must be the name of an option")


def _check_values(override: Override, options: Mapping[str, Iterable[str]]) -> None:
    """Raise ConfigError for a sweep over no values, which Hydra would run as a sweep without jobs."""
    text, key, value = override.input_line, override.key_or_group, override.value()
    is_known = key in options or "." in key  # a group may be in a folder of the user as well
    if isinstance(value, Glob) and is_known and not key.startswith("hydra"):
        if not value.filter(list(options.get(key, ()))):
            raise ConfigError(f"{text}: {key} has no option that matches; glob(…) selects options of groups")
    elif isinstance(value, RangeSweep) and not _length(value):
        raise ConfigError(f"{text}: the range has no values")


def _length(value: RangeSweep) -> int:
    try:
        return len([*itertools.islice(value.range(), 1)])
    except ValueError:  # a step of 0
        return 0


def _check_backbones(overrides: Sequence[Override], known: set[str], is_sweep: bool) -> set[str]:
    """Check the names of backbones; returns those that are not options yet, such as names with a tag.

    In a sweep, an unknown name is not an error here but makes its job fail.
    """
    new = {name for override in overrides for name in _backbones(override)} - known
    for name in sorted(new):
        if ":" in name:
            raise ConfigError(f"backbone={name}: write model.backbone.bottom_up.model_name={name}")
        if not is_sweep and name.partition(".")[0] not in known:  # a tag names weights of a known model
            raise ConfigError(f"backbone={name}: {suggest(name, known)}")
    return new


def _check_installed(override: Override) -> None:
    """Raise ConfigError if the package of the chosen launcher or sweeper is not installed.

    The file of the option names the extra that installs it in a line ``# @extra NAME``.
    """
    file = CONF / override.key_or_group / f"{override.value()}.yaml"
    if not override.key_or_group.startswith("hydra/") or not file.is_file():
        return
    text = file.read_text()
    target = re.search(r"_target_: (\w+\.\w+)", text)
    extra = re.search(r"^# @extra (\w+)$", text, re.MULTILINE)
    if not target or not extra:
        return
    with suppress(ModuleNotFoundError):  # raised if the package's parent is missing
        if importlib.util.find_spec(target[1]):
            return
    raise ConfigError(f"{override.input_line} needs: pip install 'd2timm[{extra[1]}]'")


def _check_types(overrides: Sequence[Override], groups: Iterable[str]) -> None:
    """Raise ConfigError if a string is given for a number, as ``d2timm train`` does."""
    texts = []
    for override in overrides:
        group = override.key_or_group.partition("/")[0]
        if group in groups or group.startswith("hydra") or override.is_delete() or override.is_add():
            continue
        texts += [(override, text) for text in _values(override) if isinstance(text, str)]
    if not texts:
        return
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        tree = hydra.compose(CONFIG)
    for override, text in texts:
        check_type(tree, override.key_or_group, text, str(override.input_line))


def _backbones(override: Override) -> list[str]:
    """The names of backbones in an override."""
    if override.key_or_group not in BACKBONES or override.is_delete():
        return []
    return [value for value in _values(override) if isinstance(value, str)]


def _values(override: Override) -> list[Any]:
    """The value of an override, or the listed values of a sweep."""
    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return [one.text if isinstance(one, QuotedString) else one for one in values]
