#!/usr/bin/env python3
"""Measure a training step in several processes: copies (DDP), copies with bf16 gradients, and shards (FSDP2).

    python benchmarks/processes.py [--processes 1 2] [--images 2] [--rounds 5]

Each process has one thread and its own images, so that on idle cores the time of one process is what several
can reach at best. Prints a line of JSON for each: the median seconds of a step, the bytes that a process
sends in it by the formulas of a ring (copies: 2 (N - 1) / N of the gradients; shards: 1.5 times that), and
what it holds of weights, gradients and the state of the optimizer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from d2timm.engine.launch import launch

KINDS: dict[str, dict[str, Any]] = {
    "copies": {},
    "copies, bf16": {"bf16_compression": True},
    "shards": {"shard": True},
}


def work(kind: str, images: int, rounds: int, file: str) -> None:
    """Measure one kind in this process."""
    import torch
    from detectron2.utils import comm
    from detectron2.utils.events import EventStorage
    from native import batch
    from torch.distributed.tensor import DTensor

    from d2timm import get_config
    from d2timm.config.build import build_model
    from d2timm.engine.optim import build_optimizer
    from d2timm.engine.parallel import distribute
    from d2timm.engine.trainer import build_trainer
    from d2timm.utils.quiet import silence

    silence()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = get_config("demo.py")
    cfg.train.device = "cpu"
    cfg.train.shard = KINDS[kind].get("shard", False)
    cfg.train.ddp.bf16_compression = KINDS[kind].get("bf16_compression", False)
    cfg.model.roi_heads.num_classes = 80
    model = build_model(cfg).train()
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    parallel, _, trainer_kind = distribute(cfg.train, model)
    data = [batch(images, 160, 160)]
    trainer = build_trainer(
        cfg.train, parallel, data * (rounds + 2), build_optimizer(cfg, model), trainer_kind
    )
    trainer.storage = EventStorage()
    seconds = []
    for number in range(rounds + 2):
        trainer.iter = trainer.storage.iter = number
        comm.synchronize()
        start = time.perf_counter()
        with trainer.storage:
            trainer.run_step()
        seconds.append(time.perf_counter() - start)
    if not comm.is_main_process():
        return
    state = [value for each in trainer.optimizer.state.values() for value in each.values()]
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *state]
    own = [x.to_local() if isinstance(x, DTensor) else x for x in tensors if isinstance(x, torch.Tensor)]
    count = comm.get_world_size()
    factor = {"copies": 1.0, "copies, bf16": 0.5, "shards": 1.5}[kind]
    result = {
        "seconds": round(statistics.median(seconds[2:]), 3),
        "bytes_sent": int(factor * 2 * (count - 1) / count * weights),
        "bytes_held": sum(x.numel() * x.element_size() for x in own),
    }
    Path(file).write_text(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for count in options.processes:
        for kind in KINDS if count > 1 else ["copies"]:
            machine = Namespace(num_gpus=count, num_machines=1, machine_rank=0, dist_url="auto")
            with tempfile.NamedTemporaryFile() as file:
                launch(work, machine, kind, options.images, options.rounds, file.name)
                result = json.loads(Path(file.name).read_text())
            print(json.dumps({"processes": count, "kind": kind, **result}), flush=True)


if __name__ == "__main__":
    main()
