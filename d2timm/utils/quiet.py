"""Filters for warnings of libraries that a user of d2timm cannot act on."""

from __future__ import annotations

import logging
import warnings

from ..errors import ConfigError

__all__ = ["silence"]


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


def _is_no_mistake(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ConfigError))
