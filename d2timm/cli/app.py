"""The command ``d2timm``: runs a sub-command, and turns errors into one line and an exit code.

A sub-command is a module of this package; its docstring begins with its summary. It has the functions
``add_arguments(parser)`` and ``run(options)``, and may have ``parse(parser, arguments)``. Slow imports are
inside ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from ..errors import ConfigError
from ..utils.signals import Interrupted, StopSignals

__all__ = ["COMMANDS", "GROUPS", "main"]

MISTAKE = 2  # the exit code after a user's mistake
INTERRUPTED = 130  # the exit code that shells report for a process that Ctrl-C ended
BROKEN_PIPE = 141  # the same for a process that wrote to a closed pipe

#: Heading in the help -> sub-commands
GROUPS = {
    "train": ("check-data", "train", "sweep", "choose", "report"),
    "backbones": ("inspect", "zoo"),
    "trained detectors": ("predict", "export", "run-onnx"),
    "other projects": ("convert-weights", "convert-config"),
    "set up": ("install-detectron2", "completion"),
}
#: Errors that any access to a file can raise, and no code prevents: permissions, names, space, broken disks
OF_DISKS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.ELOOP,
        errno.EMFILE,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)
COMMANDS = tuple(name for names in GROUPS.values() for name in names)


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run a sub-command.

    Args:
        arguments: the command line, beginning with the sub-command; None: the arguments of this process.
        prog: the name of the program in the help; None: ``d2timm NAME``.

    Returns:
        The exit code: 2 after a user's mistake, which is printed to stderr in one line; 128 + its number
        after a signal: 130 for SIGINT (Ctrl-C), 138 for SIGUSR1, 143 for SIGTERM.
    """
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments), prog)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
        return BROKEN_PIPE


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe whose reader, such as head, has ended."""
    poll = select.poll()
    poll.register(sys.__stdout__ or 1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _main(arguments: list[str], prog: str | None) -> int:
    if "_ARGCOMPLETE" in os.environ:  # set by the shell while it completes a command line
        import argcomplete

        argcomplete.autocomplete(_completion_parser())
    if not arguments or arguments[0] not in COMMANDS:
        return _run_without_command(arguments)
    name, *rest = arguments
    command = _load(name)
    parser = _make_parser(command, prog or f"d2timm {name}")
    parse = getattr(command, "parse", None)  # a command that passes arguments on to another parser has it
    return _run(command, parse(parser, rest) if parse else parser.parse_intermixed_args(rest))


def _run(command: ModuleType, options: argparse.Namespace) -> int:
    from ..utils.imports import without_compiler
    from ..utils.quiet import silence

    silence()
    if packages := vars(options).pop("trust", None):
        from ..utils.targets import trust

        trust(*packages)
    try:
        with StopSignals().handled(), without_compiler():
            return int(command.run(options))
    except ConfigError as error:
        for note in getattr(error, "__notes__", []):
            print(note)
        return _fail(str(error))
    except OSError as error:
        if error.errno not in OF_DISKS:
            raise
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror) if part))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "detectron2":
            raise
        return _fail("detectron2 is not installed: run `d2timm install-detectron2`")
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        from omegaconf.errors import OmegaConfBaseException

        if not isinstance(error, OmegaConfBaseException):
            raise
        from ..utils.text import one_line

        return _fail(one_line(error))  # a value refers to one that does not exist, and was needed early


def _fail(message: str) -> int:
    from ..utils.text import printable

    print(f"error: {printable(message)}", file=sys.stderr)
    return MISTAKE


def _run_without_command(arguments: list[str]) -> int:
    """Print the help or the version, or the error of a command line without a known sub-command."""
    if arguments and arguments[0] in ("-V", "--version"):
        from .. import __version__

        print(f"d2timm {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else MISTAKE
    from ..utils.checks import suggest

    return _fail(f"{arguments[0]!r} is not a command: {suggest(arguments[0], COMMANDS)} (d2timm --help)")


def _help() -> str:
    lines = [
        "usage: d2timm COMMAND [ARGUMENTS]",
        "",
        "Every timm model as a detectron2 backbone: train, compare, use and export detectors.",
    ]
    for heading, names in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {name:20}{_summary(_load(name))}" for name in names)]
    lines += ["", "d2timm COMMAND --help shows arguments and examples; d2timm --version shows the version."]
    return "\n".join(lines)


def _load(name: str) -> ModuleType:
    return import_module(f"{__package__}.{name.replace('-', '_')}")


def _summary(command: ModuleType) -> str:
    return (command.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _make_parser(command: ModuleType, prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(command.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def _completion_parser() -> argparse.ArgumentParser:
    """One parser with all sub-commands, from which argcomplete reads commands and options."""
    parser = argparse.ArgumentParser(prog="d2timm")
    parsers = parser.add_subparsers()
    for name in COMMANDS:
        _load(name).add_arguments(parsers.add_parser(name))
    return parser
