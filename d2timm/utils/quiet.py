"""Messages of libraries to their own developers, which a user can do nothing about."""

from __future__ import annotations

import logging
import warnings

__all__ = ["silence"]


def silence() -> None:
    """Hide deprecation notices that detectron2's calls of torch provoke; call before importing it."""
    for message in ("`torch.jit", "`torch.cuda.amp", "pkg_resources is deprecated", "torch.meshgrid"):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings("ignore", module=r"timm\.layers\.interpolate")  # of tables of relative positions
    logging.getLogger("alembic").setLevel(logging.WARNING)  # Optuna's
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
