"""The Hydra front-end: a command line becomes one job or the jobs of a sweep.

    arguments -> overrides.prepare -> Hydra composes -> jobs.run_job for each job -> leaderboard of a sweep

torch is imported by the first job, so questions and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ..config.paths import quote
from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.signals import Interrupted
from ..utils.text import first_line
from .callback import SweepFolder, print_leaderboard
from .hydra_groups import BACKBONE
from .jobs import in_sweep, run_job
from .overrides import CONF, CONFIG, prepare
from .stopping import SweepSignals

__all__ = ["main"]

Task: TypeAlias = Callable[[DictConfig], "float | None"]

MAX_LOST_WORKERS = 5
FULL_ERROR = "HYDRA_FULL_ERROR"  # the environment variable of Hydra that asks for tracebacks


class JobError(Exception):
    """An error of a job that is no mistake of the user; Hydra passes it on. Its argument is the error."""


#: Errors of mistakes whose message is enough, and of jobs
EXPLAINED = (ConfigError, HydraException, OmegaConfBaseException, JobError)


def main(options: argparse.Namespace, arguments: list[str]) -> int:
    """Compose the arguments of a command line, and run the resulting job or sweep.

    Args:
        options: the front-end's own flags.
        arguments: all other arguments, which are Hydra's.

    Returns:
        The exit code: 0, 1 for a sweep with runs that did not finish, or 128 + its number after a signal.

    Raises:
        ConfigError: the user made a mistake.
    """
    mistakes: list[str] = []
    code = 0
    try:
        with SweepSignals().handled():
            arguments = prepare(arguments)
            _compose_and_run(_make_task(options, mistakes), options, arguments)
    except JobError as error:
        raise error.args[0] from None
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        mistakes.append(explain(error))
    except Interrupted as interrupted:
        code = interrupted.exit_code
    finally:  # after any other error as well, because some runs may have ended
        failed = _end_sweep(options.dry_run)
    if mistakes:
        raise ConfigError(mistakes[0])
    return code or failed


def _make_task(options: argparse.Namespace, mistakes: list[str]) -> Task:
    """The function that Hydra calls for each job. A mistake in a single job is appended to ``mistakes``."""

    def task(cfg: DictConfig) -> float | None:
        try:
            return run_job(cfg, options)
        except (ConfigError, OmegaConfBaseException) as error:
            if in_sweep(HydraConfig.get()):
                raise
            mistakes.append(explain(error))  # Hydra would print a raised error in its own format
            return None
        except Exception as error:
            raise JobError(error) from error
        finally:
            with suppress(OSError):
                Path(HydraConfig.get().runtime.output_dir).rmdir()  # Hydra creates it; it may still be empty

    return task


def _end_sweep(dry_run: bool) -> int:
    """Print the leaderboard if a sweep has started; returns the exit code."""
    folder = SweepFolder.path
    if not folder:
        return 0
    code = 0 if dry_run else print_leaderboard(folder)
    with suppress(OSError):
        folder.rmdir()  # it is empty if no run has started
    return code


def _compose_and_run(task: Task, options: argparse.Namespace, arguments: list[str]) -> None:
    run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)(task)
    full = FULL_ERROR in os.environ
    with env_override({FULL_ERROR: "1"}):  # Hydra raises its errors instead of printing them
        for _ in range(MAX_LOST_WORKERS):
            sys.argv[1:] = arguments
            try:
                run()
                return
            except Exception as error:
                # an error of joblib, which may not be installed
                lost = type(error).__name__ == "TerminatedWorkerError"
                if not lost and (full or isinstance(error, EXPLAINED)):
                    raise
                if not lost:  # Hydra and its plug-ins check few of their arguments
                    reason = first_line(error, with_type=True)
                    raise ConfigError(f"Hydra: {reason} ({FULL_ERROR}=1 shows where)") from error
                print("A worker process was killed; the sweep continues without its run.")
                options.resume_lost = False
                arguments = [*arguments, f"hydra.sweep.dir={quote(str(SweepFolder.path))}"]
    raise ConfigError(
        f"{MAX_LOST_WORKERS} worker processes were killed; if memory is short, lower hydra.launcher.n_jobs"
    )


def explain(error: BaseException) -> str:
    """Describe an error of Hydra, OmegaConf or d2timm in one line, with names similar to a misspelt one."""
    if isinstance(error, ConfigError):
        return str(error)
    lines = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, OverrideParseException):
        return ": ".join(lines[:2])
    text = " ".join(" ".join(lines[:3]).split())
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return _explain_option(error.missing_cfg_file, error.options)
    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException):
        return text
    is_unknown = isinstance(cause, (ConfigKeyError, ConfigAttributeError))
    if is_unknown and isinstance(cause.parent_node, DictConfig) and cause.key is not None:
        return f"{lines[0].rstrip('.')}: {_explain_key(cause)}"
    return f"{text}: {first_line(cause)}"


def _explain_option(name: str, known: Sequence[str]) -> str:
    """Describe the unknown option ``group/option``; the models that are options are too many to list."""
    group, _, option = name.rpartition("/")
    others = "" if group == BACKBONE else f"; {group} is one of {', '.join(sorted(known))}"
    return f"{group}={option}: {suggest(option, known)}{others}"


def _explain_key(cause: OmegaConfBaseException) -> str:
    """Describe a key that does not exist in its parent node."""
    parent = str(cause.full_key).rpartition(".")[0]
    missing = f"{parent} has no key {cause.key!r}" if parent else f"there is no key {cause.key!r}"
    return f"{missing}; {suggest(str(cause.key), map(str, cause.parent_node))} (+key=value adds one)"
