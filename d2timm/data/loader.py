"""Batches for training and evaluation, without images that turn out to be unreadable.

A worker process cannot raise an error of its own kind in the training process. It sends a ``BadSample``
instead, and ``data.on_error`` decides about it there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.samplers import RepeatFactorTrainingSampler

from ..errors import ConfigError
from ..utils.targets import config_target

__all__ = [
    "BadSample",
    "ReadableBatches",
    "ReadableSamples",
    "bad_samples",
    "build_test_loader",
    "build_train_loader",
]

logger = logging.getLogger(__name__)

Entry: TypeAlias = dict[str, Any]

LIMIT = 100  # unreadable images in a row, after which something else must be wrong


@dataclass(frozen=True)
class BadSample:
    """An image that cannot be read, in place of the input of a detector.

    Attributes:
        reason: the file and why it cannot be read.
    """

    reason: str


class _Guarded:
    """A mapper that returns a ``BadSample`` instead of raising an error about the image."""

    def __init__(self, mapper: Callable[[Entry], Entry]) -> None:
        self.mapper = mapper

    def __call__(self, entry: Entry) -> Entry | BadSample:
        try:
            return self.mapper(entry)
        except ConfigError as error:
            return BadSample(str(error))
        except SizeMismatchError:  # the file has changed since it was checked
            size = f"{entry['width']}x{entry['height']}"
            return BadSample(f"{entry['file_name']}: the image no longer has {size} pixels")


class _Readable:
    """What a loader yields, without the samples that cannot be read.

    Args:
        loader: yields single samples or batches of them.
        on_error: ``skip`` leaves bad samples out and warns of them; ``stop`` raises ConfigError.

    Attributes:
        bad: the reasons of all samples that have been left out, without repetitions.
    """

    def __init__(self, loader: Any, on_error: str) -> None:
        self.loader, self.on_error = loader, on_error
        self.bad: dict[str, None] = {}

    def _leave_out(self, sample: BadSample) -> None:
        if self.on_error == "stop":
            raise ConfigError(f"{sample.reason}; data.on_error=skip leaves it out")
        if sample.reason not in self.bad:
            self.bad[sample.reason] = None
            logger.warning("An image is left out: %s", sample.reason)


class ReadableSamples(_Readable):
    """An infinite stream of single samples."""

    def __iter__(self) -> Iterator[Entry]:
        in_a_row = 0
        for sample in self.loader:
            in_a_row = in_a_row + 1 if isinstance(sample, BadSample) else 0
            if in_a_row > LIMIT:
                raise ConfigError(
                    f"{in_a_row} images in a row cannot be read, the last one is {sample.reason}"
                )
            if in_a_row:
                self._leave_out(sample)
            else:
                yield sample


class ReadableBatches(_Readable):
    """The batches of an evaluation."""

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Entry]]:
        for batch in self.loader:
            for sample in batch:
                if isinstance(sample, BadSample):
                    self._leave_out(sample)
            readable = [sample for sample in batch if not isinstance(sample, BadSample)]
            if readable:
                yield readable


@config_target
def build_train_loader(
    dataset: list[dict[str, Any]],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    total_batch_size: int,
    num_workers: int = 0,
    repeat_threshold: float = 0.0,
    on_error: str = "stop",
) -> Any:
    """detectron2's training loader, which can repeat images of rare classes and leave out unreadable ones.

    Args:
        dataset: images and annotations in detectron2's format.
        mapper: turns one entry of ``dataset`` into the input of the detector.
        total_batch_size: number of images per iteration, over all processes.
        num_workers: number of processes that read images; 0: the training process reads them itself.
        repeat_threshold: 0 to 1; classes that occur in a smaller fraction of the images are sampled more
            often (the repeat factor sampling of LVIS, https://arxiv.org/abs/1908.03195, which uses 0.001); 0:
            off.
        on_error: what happens to images that cannot be read: ``skip`` or ``stop``.

    Raises:
        ConfigError: the threshold is out of range, or the entries have no object annotations.
    """
    if not 0 <= repeat_threshold <= 1:
        raise ConfigError(
            f"repeat_threshold={repeat_threshold} is not a fraction of the images: use 0 (off) to 1"
        )
    sampler = None
    if repeat_threshold:
        if any("annotations" not in entry for entry in dataset):
            raise ConfigError(
                f"repeat_threshold={repeat_threshold} counts object classes, and this detector only predicts "
                "pixel classes: use 0"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, repeat_threshold
        )
        sampler = RepeatFactorTrainingSampler(factors)
    loader = build_detection_train_loader(
        dataset,
        mapper=_Guarded(mapper),
        sampler=sampler,
        total_batch_size=total_batch_size,
        num_workers=num_workers,
    )
    loader.dataset = ReadableSamples(loader.dataset, on_error)  # what it groups by aspect ratio
    return loader


@config_target
def build_test_loader(
    dataset: list[Entry], mapper: Callable[[Entry], Entry], num_workers: int = 0, on_error: str = "stop"
) -> ReadableBatches:
    """detectron2's loader for evaluation, one image per batch, which can leave out unreadable images.

    Args:
        dataset: images in detectron2's format.
        mapper: turns one entry of ``dataset`` into the input of the detector.
        num_workers: number of processes that read images; 0: the evaluating process reads them itself.
        on_error: what happens to images that cannot be read: ``skip`` or ``stop``.
    """
    loader = build_detection_test_loader(dataset, mapper=_Guarded(mapper), num_workers=num_workers)
    return ReadableBatches(loader, on_error)


def bad_samples(loader: Any) -> list[str]:
    """The images that a loader has left out, each with the reason; [] for loaders of other packages."""
    readable = loader if isinstance(loader, _Readable) else getattr(loader, "dataset", None)
    return list(readable.bad) if isinstance(readable, _Readable) else []
