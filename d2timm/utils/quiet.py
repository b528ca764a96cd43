"""Filters for log messages: those that a user cannot act on, and control characters in the others."""

from __future__ import annotations

import logging
import re
import threading
import warnings

from ..errors import ConfigError
from .text import printable

__all__ = ["escape_controls", "silence"]

COLOUR = re.compile("(\x1b\\[[0-9;]*m)")  # with which detectron2 highlights its tables


def silence() -> None:
    """Hide deprecation warnings and chatter of detectron2, timm, torch and Optuna.

    Call it before detectron2 is imported.
    """
    for message in ("`torch.jit", "`torch.cuda.amp", "pkg_resources is deprecated", "torch.meshgrid"):
        warnings.filterwarnings("ignore", message=message)
    # timm warns about the interpolation of relative position tables
    warnings.filterwarnings("ignore", module=r"timm\.layers\.interpolate")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # used by Optuna's storage
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    # the training loop logs every exception with its traceback; the message of a ConfigError says all
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_no_mistake)
    threading.excepthook = _print_unless_handed_on


def escape_controls(record: logging.LogRecord) -> bool:
    """Escape control characters in a message, such as those in the name of a class, except for colours."""
    parts = COLOUR.split(record.getMessage())
    record.msg = "".join(part if COLOUR.fullmatch(part) else printable(part, lines=True) for part in parts)
    record.args = ()
    return True


def _print_unless_handed_on(failed: threading.ExceptHookArgs) -> None:
    """Print the error of a thread, unless it is TensorBoard's, which the next call of its writer raises."""
    if getattr(failed.thread, "exception", None) is not failed.exc_value:
        threading.__excepthook__(failed)


def _is_no_mistake(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ConfigError))
