"""The Hydra front-end: from a command line to Hydra, and from Hydra's errors to a line.

    arguments -> own flags | groups -> Hydra composes -> jobs.run_job for each job -> the answer of a sweep

torch is imported by the first job: what is asked or mistaken before is told at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.core.utils import env_override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ..config.groups import read_nodes
from ..config.lazy import check_type
from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.files import resource_folder
from .callback import Answer, answer
from .hydra_groups import ANY, BACKBONE, replace_launchers, store_backbones, store_groups
from .jobs import PAUSE, in_sweep, run_job

__all__ = ["main"]

Task: TypeAlias = Callable[[DictConfig], "float | None"]

CONF = resource_folder("conf").resolve()  # Hydra's own files: defaults, sweeps, launchers
CONFIG = "config"
INTERRUPTED = 130  # what shells say of a process that Ctrl-C has ended
MOST_LOSSES = 5
SWEEPS = ("-m", "--multirun")
BUDGET = "budget"  # of a screening
MODES = ("sweep", "hydra.mode")  # overrides that may make a sweep of it
#: Flags of Hydra that look at the config instead of running it
LOOKS = ("-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "--hydra-help")


def main(options: argparse.Namespace, arguments: list[str]) -> int:
    """Compose and run what a command line asks for.

    Args:
        options: the front-end's own flags.
        arguments: all others, which are Hydra's.

    Returns:
        The exit code: 2 for a user's mistake, 1 for a sweep in which something failed.
    """
    refused: list[str] = []

    def task(cfg: DictConfig) -> float | None:
        try:
            return run_job(cfg, options)
        except (ConfigError, OmegaConfBaseException) as error:
            if in_sweep(HydraConfig.get()):
                raise
            refused.append(explain(error))  # Hydra would tell it in its own way
            return None
        finally:
            with suppress(OSError):
                Path(HydraConfig.get().runtime.output_dir).rmdir()  # Hydra has made it, and nothing is in it

    code = 0
    try:
        _compose_and_run(task, options, _prepare(arguments))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        code = _refuse(explain(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:  # whatever else happens, the runs that have ended are worth a leaderboard
        if Answer.folder:
            if not options.dry_run:
                told = answer(Answer.folder)
                code = code or told
            with suppress(OSError):
                Answer.folder.rmdir()  # nothing came of it
    return _refuse(refused[0]) if refused else code


def _compose_and_run(task: Task, options: argparse.Namespace, arguments: list[str]) -> None:
    run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)(task)
    with env_override({"HYDRA_FULL_ERROR": "1"}):  # Hydra hands its errors on, instead of printing them
        for _ in range(MOST_LOSSES):
            sys.argv[1:] = arguments
            try:
                run()
                return
            except Exception as error:
                if type(error).__name__ != "TerminatedWorkerError":  # joblib's, which may not be there
                    raise
                print("A worker process was killed; the sweep goes on without its run.")
                options.resume_lost = False
                arguments = [*arguments, f"hydra.sweep.dir={Answer.folder}"]
    raise ConfigError(
        f"{MOST_LOSSES} worker processes were killed: is there memory for hydra.launcher.n_jobs?"
    )


def explain(error: BaseException) -> str:
    """An error of Hydra, OmegaConf or ours in a line, with the names that resemble a wrong one."""
    if isinstance(error, ConfigError):
        return str(error)
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, OverrideParseException):
        return ": ".join(lines[:2])
    text = " ".join(" ".join(lines[:3]).split())
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        hint = suggest(option, error.options)
        known = "" if group == BACKBONE else f"; there are {', '.join(sorted(error.options))}"
        return f"{group}={option}: {hint}{known}"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        parent = cause.parent_node
        if isinstance(parent, DictConfig) and cause.key is not None:
            where = f"{cause.full_key}".rpartition(".")[0]
            inside = f"{where} has no key {cause.key!r}" if where else f"there is no key {cause.key!r}"
            first = lines[0].rstrip(".")
            return f"{first}: {inside}; {suggest(str(cause.key), map(str, parent))} (+key=value adds one)"
        return f"{text}: {' '.join(str(cause).splitlines()[0].split())}"
    return text


def _prepare(arguments: Sequence[str]) -> list[str]:
    """Fill Hydra's groups; returns the arguments for Hydra."""
    nodes = read_nodes()
    store_groups(nodes)
    replace_launchers(CONF / "hydra")
    overrides = _parse(arguments)
    known = {ANY, *nodes.names}
    asked = {name for override in overrides for name in _backbones(override)} - known
    sweeps = any(flag in arguments for flag in SWEEPS) or any(o.key_or_group in MODES for o in overrides)
    for override in overrides:
        _check_form(override, nodes.options, sweeps)
    for name in sorted(asked):
        if ":" in name:
            raise ConfigError(f"backbone={name}: say model.backbone.bottom_up.model_name={name}")
        # a tag of weights is no name of its own; in a sweep a wrong name is the failure of one job
        if not sweeps and name.partition(".")[0] not in known:
            raise ConfigError(f"backbone={name}: {suggest(name, known)}")
    store_backbones(asked)
    for override in overrides:
        _check_installed(override)
    _check_types(overrides, nodes.options)
    swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
    fixed = [override.key_or_group for override in overrides if not override.is_sweep_override()]
    # what all jobs share is no part of their names, nor how far one is trained for the moment; the length
    # of the schedule follows from a budget
    length = ["train.max_iter"] if any(o.key_or_group == BUDGET for o in overrides) else []
    same = [PAUSE, *length, *(key for key in fixed if not key.startswith("hydra") and key not in swept)]
    # Hydra takes overrides in one piece only
    arguments = sorted(arguments, key=_is_override)
    if any(flag in arguments for flag in LOOKS):
        return arguments
    return [*arguments, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(repr, same))}]"]


def _parse(arguments: Sequence[str]) -> list[Override]:
    """The overrides among Hydra's arguments."""
    told = list(filter(_is_override, arguments))
    if any(flag in arguments for flag in LOOKS[4:]):
        return []  # these have keys of their own
    try:
        overrides: list[Override] = OverridesParser.create().parse_overrides(told)
    except HydraException as error:
        raise ConfigError(f"an override is not key=value: {str(error).splitlines()[0]}") from None
    return overrides


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and "=" in argument


def _check_form(override: Override, groups: Iterable[str], sweeps: bool) -> None:
    """Raise ConfigError for several values without a sweep, and for what is no name of an option."""
    told, key = override.input_line, override.key_or_group
    if override.is_sweep_override():
        if not sweeps:
            raise ConfigError(f"{told}: several values are a sweep, which -m runs")
    elif key in groups or key.startswith("hydra/"):
        value = override.value()
        if not override.is_delete() and not (value and isinstance(value, (str, list))):
            raise ConfigError(f"{told}: {key} is chosen by the name of an option")


def _check_installed(override: Override) -> None:
    """Raise ConfigError if a launcher or a sweeper is chosen whose package is not installed.

    The file of an option declares the extra that installs it, in a line ``# @extra NAME``.
    """
    file = CONF / override.key_or_group / f"{override.value()}.yaml"
    if not override.key_or_group.startswith("hydra/") or not file.is_file():
        return
    text = file.read_text()
    target = re.search(r"_target_: (\w+)\.(\w+)", text)
    with suppress(ModuleNotFoundError):
        if not target or importlib.util.find_spec(f"{target[1]}.{target[2]}"):
            return
    extra = re.search(r"^# @extra (\w+)$", text, re.MULTILINE)
    fix = f"pip install 'd2timm[{extra[1]}]'" if extra else f"the package of {target and target[2]}"
    raise ConfigError(f"{override.input_line} needs {fix}")


def _check_types(overrides: Sequence[Override], groups: Iterable[str]) -> None:
    """Raise ConfigError if a text is given for a number, as the other front-end does."""
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
    """Names of backbones that an override asks for."""
    if override.key_or_group not in (BACKBONE, f"{BACKBONE}s") or override.is_delete():
        return []
    return [value for value in _values(override) if isinstance(value, str)]


def _values(override: Override) -> list[Any]:
    """The value of an override, or those of a sweep that lists them."""
    value = override.value()
    told = value.list if isinstance(value, ChoiceSweep) else [value]
    return [one.text if isinstance(one, QuotedString) else one for one in told]


def _refuse(told: str) -> int:
    print(f"error: {told}", file=sys.stderr)
    return 2
