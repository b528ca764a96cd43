"""The time that a choice has."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

from ..errors import ConfigError

__all__ = ["Clock", "find_deadline", "in_words"]

LEAST = 60.0  # seconds of a choice
#: Share of the time, and its limits in seconds, that the end of a choice is kept free: page, verdict, export
RESERVE, LEAST_RESERVE, MOST_RESERVE = 0.05, 15.0, 180.0


class Clock:
    """The time until the deadline of a choice.

    Args:
        started: when the choice began, in seconds since 1970.
        deadline: when it must have ended.
    """

    def __init__(self, started: float, deadline: float) -> None:
        self.started, self.deadline = started, deadline

    @property
    def total(self) -> float:
        """Seconds from the beginning to the deadline."""
        return self.deadline - self.started

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - time.time()

    @property
    def reserve(self) -> float:
        """Seconds that are kept for what follows the last training."""
        return min(max(RESERVE * self.total, LEAST_RESERVE), MOST_RESERVE)

    @property
    def usable(self) -> float:
        """Seconds that are left for training and evaluation."""
        return self.left - self.reserve


def find_deadline(by: str | None, hours: float | None, started: float) -> float:
    """When a choice must have ended, in seconds since 1970.

    Args:
        by: a time of day, ``22:00``, which is the next one after the beginning, or a date with time,
            ``2026-12-31T07:00``.
        hours: from the beginning.
        started: when the choice began, in seconds since 1970.

    Raises:
        ConfigError: none of both is given, or both are; or the time is too short, or not a time.
    """
    if (by is None) == (hours is None):
        raise ConfigError("give the time of the choice: --by 22:00 or --hours 8, and not both")
    deadline = (
        started + 3600 * hours if hours is not None else _parse(str(by), datetime.fromtimestamp(started))
    )
    if not deadline >= started + LEAST:  # NaN is not, either
        given = f"--hours {hours:g}" if hours is not None else f"--by {by}"
        raise ConfigError(f"{given}: a choice needs at least {LEAST:.0f} seconds")
    return deadline


def _parse(by: str, started: datetime) -> float:
    try:
        if match := re.fullmatch(r"(\d{1,2}):(\d{2})", by):
            moment = started.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
            return (moment if moment > started else moment + timedelta(days=1)).timestamp()
        return datetime.fromisoformat(by).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(f"--by {by}: must be a time, such as 22:00 or 2026-12-31T07:00") from None


def in_words(seconds: float) -> str:
    """A time for people: ``40 s``, ``25 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
