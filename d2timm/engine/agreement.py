"""What the processes of a run agree on in each step."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import nn

__all__ = ["any_process", "highest", "share_buffers"]


def highest(number: int) -> int:
    """Return the highest number of all processes; each of them must call it."""
    if comm.get_world_size() == 1:
        return number
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def share_buffers(model: nn.Module) -> None:
    """Give a model in all processes the buffers of the first one; each of them must call it.

    Parameters are equal in all processes, but statistics of batch norms are those of the images of each.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def any_process(condition: bool) -> bool:
    """Return whether a condition holds in any process; each of them must call it."""
    return bool(highest(int(condition)))
