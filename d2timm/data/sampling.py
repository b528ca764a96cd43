"""The order in which a training sees its images, which depends on nothing but the seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from torch import Tensor

from ..utils.seeds import derive_seed
from .entries import Entries

__all__ = ["Draw", "TrainingBatches", "repeat_factors"]


class Draw(NamedTuple):
    """An image in the order of the training.

    Attributes:
        epoch: number of the pass over the dataset, from 0.
        place: place in the order of the epoch, from 0.
        image: index of the image in the dataset.
    """

    epoch: int
    place: int
    image: int


class TrainingBatches:
    """The endless sequence of batches of one process.

    Each epoch has all images in a random order, which the processes of a run divide among them. As in
    detectron2's ``AspectRatioGroupedDataset``, landscape and portrait images fill separate batches, which
    need less padding then; a batch that is incomplete at the end of an epoch is filled in the next one.

    Args:
        landscape: for each image of the dataset, whether its width is greater than its height.
        batch_size: images per batch of this process, >= 1.
        seed: seed of the run, >= 0, the same in all processes.
        repeats: for each image, how often it occurs in an epoch on average, >= 1 (the repeat factor sampling
            of LVIS, https://arxiv.org/abs/1908.03195); None: once.
    """

    def __init__(
        self, landscape: Sequence[bool], batch_size: int, seed: int, repeats: Tensor | None = None
    ) -> None:
        self.landscape, self.batch_size, self.seed, self.repeats = landscape, batch_size, seed, repeats

    def starting_at(self, number: int) -> Iterator[list[Draw]]:
        """Yield all batches from a number on; the first batch of the training has the number 0."""
        return itertools.islice(self._batches(), number, None)

    def _batches(self) -> Iterator[list[Draw]]:
        buckets: tuple[list[Draw], list[Draw]] = ([], [])
        for draw in itertools.islice(self._draws(), comm.get_rank(), None, comm.get_world_size()):
            bucket = buckets[self.landscape[draw.image]]
            bucket.append(draw)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()

    def _draws(self) -> Iterator[Draw]:
        """The images of all processes."""
        for epoch in itertools.count():
            for place, image in enumerate(self._order(epoch)):
                yield Draw(epoch, place, image)

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        indices = torch.arange(len(self.landscape))
        if self.repeats is not None:
            # an image with the factor 1.3 occurs twice in 0.3 of the epochs
            extra = torch.rand(len(self.repeats), generator=generator) < self.repeats.frac()
            indices = indices.repeat_interleave(self.repeats.long() + extra.long())
        order: list[int] = indices[torch.randperm(len(indices), generator=generator)].tolist()
        return order


def repeat_factors(entries: Entries, threshold: float) -> Tensor:
    """How often each image occurs in an epoch on average, (N), >= 1, by its rarest class.

    The factors are those of LVIS and of detectron2's ``RepeatFactorTrainingSampler``.

    Args:
        entries: the images.
        threshold: 0 to 1, the fraction of the images below which a class is rare.
    """
    objects = entries.objects()
    pairs = np.unique(np.stack([objects.images, objects.classes.astype(np.int64)]), axis=1)
    images, classes = pairs
    frequencies = np.bincount(classes) / len(entries)
    factors = np.ones(len(entries))
    np.maximum.at(factors, images, np.sqrt(threshold / frequencies[classes]))
    return torch.from_numpy(factors).float()
