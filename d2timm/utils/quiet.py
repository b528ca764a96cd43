"""Filters for warnings of libraries that a user of d2timm cannot act on."""

from __future__ import annotations

import logging
import warnings

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
