"""Batches for training and evaluation, without images that turn out to be unreadable."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import torch
from detectron2.data import MapDataset
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import ConfigError
from ..utils.bounds import Bounds
from ..utils.seeds import seeded
from ..utils.sizes import ceil_div
from ..utils.targets import config_target
from .bad_samples import BadSample, Guarded, Readable
from .entries import Entries, Entry, as_entries
from .sampling import Draw, TrainingBatches, repeat_factors
from .workers import Workers, count_workers, prepare_worker, replacing_workers

__all__ = [
    "ReadableBatches",
    "TrainLoader",
    "build_test_loader",
    "build_train_loader",
]

logger = logging.getLogger(__name__)

OnError: TypeAlias = Literal["skip", "stop"]

LIMIT = 100  # unreadable images in a row, after which something else must be wrong


class _Samples(Dataset[list[Any]]):
    """The images of a training by their place in its order; each has its own random numbers.

    Args:
        dataset: images and annotations in detectron2's format, whose memory worker processes share.
        mapper: turns an entry of the dataset into the input of the detector, or a ``BadSample``.
        batches: the order, and the seed of the run.
    """

    def __init__(
        self, dataset: Entries, mapper: Callable[[Entry], Entry | BadSample], batches: TrainingBatches
    ) -> None:
        self.dataset, self.mapper, self.batches = dataset, mapper, batches

    def __getitem__(self, draw: Draw) -> list[Entry | BadSample]:
        """An image; if it is unreadable, it and random others up to the first that is not."""
        samples = []
        index, landscape = draw.image, self.batches.landscape
        with seeded(self.batches.seed, draw.epoch, draw.place):
            while True:
                samples.append(self.mapper(self.dataset[index]))
                if not isinstance(samples[-1], BadSample) or len(samples) > LIMIT:
                    return samples
                same = [i for i, value in enumerate(landscape) if value == landscape[draw.image]]
                index = random.choice(same)


class TrainLoader(Readable):
    """The endless sequence of training batches of one process, which can continue at any of them.

    What a batch contains depends on the seed and its number only: not on the number of worker processes, and
    not on whether the training was interrupted. A worker process that dies is replaced.

    Args:
        dataset: images and annotations in detectron2's format.
        mapper: turns an entry of the dataset into the input of the detector.
        batches: the order of the images.
        num_workers: number of processes that read images; 0: this process reads them itself.
        on_error: what happens to images that cannot be read: ``skip`` or ``stop``.

    Attributes:
        position: number of batches that have been yielded; iterating continues there.
    """

    def __init__(
        self,
        dataset: Iterable[Entry],
        mapper: Callable[[Entry], Entry],
        batches: TrainingBatches,
        num_workers: int,
        on_error: str,
    ) -> None:
        super().__init__(on_error)
        entries = as_entries(dataset)
        self.samples = _Samples(entries, Guarded(mapper), batches)
        self.batches, self.num_workers = batches, num_workers
        self.position = 0
        sizes = list(zip(entries.heights.tolist(), entries.widths.tolist(), strict=True))
        self._dataset = f"{len(sizes)} images ({hashlib.sha1(repr(sizes).encode()).hexdigest()[:12]})"

    def __iter__(self) -> Iterator[list[Entry]]:
        for batch in replacing_workers(self._open, self.position):
            self.position += 1
            yield [self._readable(samples) for samples in batch]

    def batch(self, number: int) -> list[Entry]:
        """Read one batch in this process, for a trial: it does not count as yielded.

        Args:
            number: number of the batch, >= 0.

        Raises:
            ConfigError: its images, and others in their place, cannot be read.
        """
        draws = next(self.batches.starting_at(number))
        return [self._readable(self.samples[draw]) for draw in draws]

    def _open(self, position: int) -> DataLoader[Any]:
        return DataLoader(
            self.samples,
            batch_sampler=self.batches.starting_at(position),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=prepare_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def _readable(self, samples: list[Entry | BadSample]) -> Entry:
        for sample in samples:
            if isinstance(sample, BadSample):
                self.leave_out(sample)
        last = samples[-1]
        if isinstance(last, BadSample):
            raise ConfigError(f"{len(samples)} images in a row cannot be read, the last one is {last.reason}")
        return last

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what the order of the images depends on."""
        return {"images": self.position * self._images_per_batch(), **self._order()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the images that another loader has yielded, and warn if its order was another."""
        order = self._order()
        changed = [f"{key} {order[key]} instead of {state[key]}" for key in order if order[key] != state[key]]
        if changed:
            logger.warning("The order of the images is not that of the run so far: %s", ", ".join(changed))
        self.position = state["images"] // self._images_per_batch()

    def _images_per_batch(self) -> int:
        processes: int = comm.get_world_size()
        return self.batches.batch_size * processes

    def _order(self) -> dict[str, Any]:
        return {
            "seed": self.batches.seed,
            "dataset": self._dataset,
            "batch size": self._images_per_batch(),
            "processes": comm.get_world_size(),
        }


class ReadableBatches(Readable):
    """The batches of an evaluation; the processes of a run divide the images.

    Args:
        dataset: images in detectron2's format, at least one.
        mapper: turns an entry of the dataset into the input of the detector.
        num_workers: number of processes that read images; 0: this process reads them itself.
        on_error: what happens to images that cannot be read: ``skip`` or ``stop``.
        batch_size: images of a batch, >= 1.
    """

    def __init__(
        self,
        dataset: Iterable[Entry],
        mapper: Callable[[Entry], Entry],
        num_workers: int,
        on_error: str,
        batch_size: int = 1,
    ) -> None:
        super().__init__(on_error)
        entries = as_entries(dataset)
        self.samples = MapDataset(entries, Guarded(mapper))
        self.indices = [*InferenceSampler(len(entries))]
        self.num_workers, self.batch_size = num_workers, batch_size

    def __len__(self) -> int:
        return ceil_div(len(self.indices), self.batch_size)

    def __iter__(self) -> Iterator[list[Entry]]:
        for batch in replacing_workers(self._open, 0):
            for sample in batch:
                if isinstance(sample, BadSample):
                    self.leave_out(sample)
            readable = [sample for sample in batch if not isinstance(sample, BadSample)]
            if readable:
                yield readable

    def _open(self, position: int) -> DataLoader[Any]:
        return DataLoader(
            self.samples,
            batch_size=self.batch_size,
            sampler=self.indices[position * self.batch_size :],
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=prepare_worker,
            pin_memory=torch.cuda.is_available(),
        )


@config_target
def build_train_loader(
    dataset: Iterable[Entry],
    mapper: Callable[[Entry], Entry],
    total_batch_size: Annotated[int, Bounds(at_least=1)],
    num_workers: Workers = 0,
    repeat_threshold: float = 0.0,
    on_error: OnError = "stop",
    seed: int | None = None,
) -> TrainLoader:
    """Batches for training; images of rare classes can be repeated, and unreadable ones left out.

    Args:
        dataset: images and annotations in detectron2's format.
        mapper: turns one entry of ``dataset`` into the input of the detector.
        total_batch_size: number of images per iteration, over all processes.
        num_workers: number of processes that read images; 0: the training process reads them itself; auto:
            see ``count_workers``.
        repeat_threshold: 0 to 1; classes that occur in a smaller fraction of the images are sampled more
            often (the repeat factor sampling of LVIS, https://arxiv.org/abs/1908.03195, which uses 0.001); 0:
            off.
        on_error: what happens to images that cannot be read: ``skip`` or ``stop``.
        seed: seed of the order and of the augmentation, the same in all processes; None or < 0: a random one.

    Raises:
        ConfigError: the threshold is out of range, the entries have no object annotations, or the batch
            cannot be divided among the processes.
    """
    if not 0 <= repeat_threshold <= 1:
        raise ConfigError(
            f"repeat_threshold={repeat_threshold} is not a fraction of the images: use 0 (off) to 1"
        )
    entries, repeats = as_entries(dataset), None
    if repeat_threshold:
        if not entries.has_objects:
            raise ConfigError(
                f"repeat_threshold={repeat_threshold} counts object classes, and this detector only predicts "
                "pixel classes: use 0"
            )
        repeats = repeat_factors(entries, repeat_threshold)
    if total_batch_size < 1 or total_batch_size % comm.get_world_size():
        raise ConfigError(
            f"total_batch_size={total_batch_size} cannot be divided among {comm.get_world_size()} process(es)"
        )
    batches = TrainingBatches(
        (entries.widths > entries.heights).tolist(),
        total_batch_size // comm.get_world_size(),
        comm.shared_random_seed() if seed is None or seed < 0 else seed,
        repeats,
    )
    return TrainLoader(entries, mapper, batches, count_workers(num_workers), on_error)


@config_target
def build_test_loader(
    dataset: Iterable[Entry],
    mapper: Callable[[Entry], Entry],
    num_workers: Workers = 0,
    on_error: OnError = "stop",
    batch_size: Annotated[int, Bounds(at_least=1)] = 1,
) -> ReadableBatches:
    """Batches for evaluation; unreadable images can be left out.

    Args:
        dataset: images in detectron2's format.
        mapper: turns one entry of ``dataset`` into the input of the detector.
        num_workers: number of processes that read images; 0: the evaluating process reads them itself; auto:
            see ``count_workers``.
        on_error: what happens to images that cannot be read: ``skip`` or ``stop``.
        batch_size: images that are detected in together; they are padded to the largest of them, which
            changes scores a little.
    """
    return ReadableBatches(dataset, mapper, count_workers(num_workers), on_error, batch_size)
