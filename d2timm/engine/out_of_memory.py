"""What a user can do if memory does not suffice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from omegaconf import DictConfig

from ..errors import ConfigError
from ..runs.memory import peak_memory

__all__ = ["out_of_memory_explained"]

#: Parts of the errors by which torch and oneDNN say that the memory of the CPU does not suffice
CPU_MEMORY = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory")


@contextmanager
def out_of_memory_explained(cfg: DictConfig) -> Iterator[None]:
    """Raise ConfigError with the peak memory and what lowers it if a block runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        cpu = isinstance(error, MemoryError) or any(sign in str(error) for sign in CPU_MEMORY)
        if not cpu and not isinstance(error, torch.OutOfMemoryError):
            raise
        batch, accumulate = cfg.dataloader.train.total_batch_size, cfg.train.get("accumulate", 1)
        raise ConfigError(
            f"out of memory, with a peak of {peak_memory() / 2**30:.1f} GB: lower "
            f"dataloader.train.total_batch_size={batch} and raise train.accumulate={accumulate} by the same "
            "factor, train on smaller images, or use train.amp.enabled=True"
        ) from error
