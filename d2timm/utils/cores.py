"""The cores that this process may use."""

from __future__ import annotations

import os

__all__ = ["SHARE", "count_cores"]

#: Environment variable with the number of cores that a sweep leaves to each of its simultaneous runs
SHARE = "D2TIMM_CORES"


def count_cores() -> int:
    """Count the cores on which this process may run, or its share of them."""
    share = os.environ.get(SHARE, "")
    if share.isdecimal() and int(share):
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
