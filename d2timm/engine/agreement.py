"""What the processes of a run agree on in each step."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm

__all__ = ["any_process", "highest"]


def highest(number: int) -> int:
    """Return the highest number of all processes; each of them must call it."""
    if comm.get_world_size() == 1:
        return number
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def any_process(condition: bool) -> bool:
    """Return whether a condition holds in any process; each of them must call it."""
    return bool(highest(int(condition)))
