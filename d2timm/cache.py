"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """``$D2TIMM_CACHE``, else ``$XDG_CACHE_HOME/d2timm``, else ``~/.cache/d2timm``; it may not exist yet."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "d2timm")
    return Path(os.environ.get("D2TIMM_CACHE") or default).expanduser().absolute()
