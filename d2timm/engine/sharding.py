"""``train.shard``: divide weights, gradients and the state of the optimizer among the processes of a run.

For backbones of a billion parameters, whose training does not fit into the memory of one GPU. It is FSDP2,
``torch.distributed.fsdp.fully_shard``: https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.
Checkpoints are whole, as those of other runs, so that any number of processes can continue from them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ..errors import ConfigError
from .trainer import Trainer

__all__ = ["ShardedTrainer", "check_sharding", "shard", "whole_copy"]

WHOLE = StateDictOptions(full_state_dict=True)
#: In the first process only
WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


def check_sharding(cfg: DictConfig, model: Any, processes: int) -> None:
    """Check whether the detector of a config can be sharded.

    Args:
        cfg: the tree.
        model: the detector, on any device.
        processes: number of processes of the run.

    Raises:
        ConfigError: it cannot, or something else of the config needs whole weights.
    """
    problem = None
    if processes == 1:
        problem = "there is one process only, use --num-gpus"
    elif cfg.train.ema.enabled:
        problem = "weights are averaged whole, use train.ema.enabled=False"
    elif cfg.train.amp.enabled and cfg.train.amp.get("precision", "fp16") == "fp16":
        problem = "its gradients are not scaled, use train.amp.precision=bf16"
    elif model.backbone.bottom_up.spec.input_spec.multisize:
        name = cfg.model.backbone.bottom_up.model_name
        problem = f"{name} is created anew for each image size, from whole weights; set fixed_input_size"
    if problem:
        raise ConfigError(f"train.shard=True: {problem}, or train.shard=False")


def shard(model: Any, device: str) -> None:
    """Divide the parameters of a detector among all processes, in place.

    Each block of the backbone is a unit: its weights are whole only while it computes.

    Args:
        model: the detector, with the same weights in all processes.
        device: ``cuda`` or ``cpu``.
    """
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    for block in _blocks(model.backbone.bottom_up):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _blocks(backbone: nn.Module) -> Iterator[nn.Module]:
    """The modules that lists of a backbone consist of, and that have parts themselves; inner ones first."""
    for module in reversed(list(backbone.modules())):
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            for block in module:
                if any(True for _ in block.children()) and any(True for _ in block.parameters()):
                    yield block


class ShardedTrainer(Trainer):
    """A trainer of a sharded detector.

    Args:
        whole: a copy of the detector on the CPU, whose weights are those of checkpoints and evaluations.
        model: the sharded detector.
        arguments, options: the others of ``Trainer``; the optimizer has the parameters of ``model``.
    """

    def __init__(self, whole: nn.Module, model: nn.Module, *arguments: Any, **options: Any) -> None:
        super().__init__(model, *arguments, **options)
        self.whole = whole
        self._optimizer_state: dict[str, Any] = {}

    def gather(self) -> None:
        """Collect the weights in all processes, and the state of the optimizer in the first one."""
        self._collect_weights()
        self._optimizer_state = _optimizer_state(self.model, self.optimizer)

    def scatter(self) -> None:
        """Take the weights of ``whole``, which a checkpoint has filled in all processes."""
        set_model_state_dict(self.model, self.whole.state_dict(), options=WHOLE)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Collect the weights in ``whole``, which is on the device meanwhile."""
        self._collect_weights()
        device = next(self.model.parameters()).device
        self.whole.to(device)
        try:
            yield
        finally:
            self.whole.to("cpu")

    def _collect_weights(self) -> None:
        self.whole.load_state_dict(get_model_state_dict(self.model, options=WHOLE))

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        self.model.set_requires_gradient_sync(last)
        return nullcontext()

    def _state_of_optimizer(self) -> dict[str, Any]:
        return self._optimizer_state

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        names = _names(self.model, self.optimizer)
        groups = [
            {**options, "params": [names[index] for index in group["params"]]}
            for options, group in zip(self.optimizer.param_groups, state["param_groups"], strict=True)
        ]
        values = {names[index]: each for index, each in state["state"].items()}
        named: dict[str, Any] = {"state": values, "param_groups": groups}
        set_optimizer_state_dict(self.model, self.optimizer, named, options=WHOLE)
        for options, group in zip(self.optimizer.param_groups, state["param_groups"], strict=True):
            # including those that schedules add
            options.update({key: value for key, value in group.items() if key != "params"})


def whole_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a detector on the CPU, in eval mode."""
    return copy.deepcopy(model).to("cpu").eval()


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of parameters in the order in which an optimizer numbers them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What ``optimizer.state_dict`` would return for whole parameters; without values in other processes."""
    named: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=WHOLE_ON_CPU)
    values = named.get("state", {})
    state = {index: values[name] for index, name in enumerate(_names(model, optimizer)) if name in values}
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
