"""Images that turn out to be unreadable while batches are made.

A worker process cannot raise an error of its own kind in the training process. It sends a ``BadSample``
instead, and ``data.on_error`` decides about it there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from detectron2.data.detection_utils import SizeMismatchError

from ..errors import ConfigError

__all__ = ["BadSample", "Guarded", "Readable", "bad_samples"]

logger = logging.getLogger(__name__)

Entry: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class BadSample:
    """An image that cannot be read, in place of the input of a detector.

    Attributes:
        reason: the file and why it cannot be read.
    """

    reason: str


class Guarded:
    """A mapper that returns a ``BadSample`` instead of raising an error about the image."""

    def __init__(self, mapper: Callable[[Entry], Entry]) -> None:
        self.mapper = mapper

    def __call__(self, entry: Entry) -> Entry | BadSample:
        """Map an entry."""
        try:
            return self.mapper(entry)
        except ConfigError as error:
            return BadSample(str(error))
        except SizeMismatchError:  # the file has changed since it was checked
            size = f"{entry['width']}x{entry['height']}"
            return BadSample(f"{entry['file_name']}: the image no longer has {size} pixels")


class Readable:
    """What a loader yields, without the samples that cannot be read.

    Args:
        on_error: ``skip`` leaves bad samples out and warns of them; ``stop`` raises ConfigError.

    Attributes:
        bad: the reasons of all samples that have been left out, without repetitions.
    """

    def __init__(self, on_error: str) -> None:
        self.on_error = on_error
        self.bad: dict[str, None] = {}

    def leave_out(self, sample: BadSample) -> None:
        """Leave a sample out, with a warning, or raise ConfigError."""
        if self.on_error == "stop":
            raise ConfigError(f"{sample.reason}; data.on_error=skip leaves it out")
        if sample.reason not in self.bad:
            self.bad[sample.reason] = None
            logger.warning("An image is left out: %s", sample.reason)


def bad_samples(loader: Any) -> list[str]:
    """The images that a loader has left out, each with the reason; [] for loaders of other packages."""
    return list(loader.bad) if isinstance(loader, Readable) else []
