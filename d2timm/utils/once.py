"""Messages that are logged once in a run, although several processes read images."""

from __future__ import annotations

import mmap

__all__ = ["Once"]


class Once:
    """True the first time that it is called, in this process and in all that are forked from it.

    The workers of a data loader share it, so that a message about images appears once, not once per worker.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)  # anonymous memory, which forked processes share

    def __call__(self) -> bool:
        """Return whether this is the first call."""
        first = self._memory[0] == 0
        self._memory[0] = 1
        return first
