"""Losses that are read from the device every few steps."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor

from d2timm.engine.losses import LossReader


def scalars(storage: EventStorage) -> dict[str, list[tuple[float, float]]]:
    return {name: history.values() for name, history in storage.histories().items()}


def losses(*values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in zip(("a", "b"), values, strict=True)}


def test_losses_read_together_are_logged_like_those_read_one_by_one() -> None:
    together, single = EventStorage(), EventStorage()
    later, at_once = LossReader(), LossReader()
    for step in range(5):
        for reader in (later, at_once):
            reader.add(step, losses(step + 0.5, 2.0 * step), data_seconds=step / 10, images=[])
        assert at_once.read(single) is None
    assert later.read(together) is None
    assert scalars(together) == scalars(single)
    assert scalars(together)["total_loss"][2] == (6.5, 2)


def test_first_step_that_is_not_finite_is_named_and_earlier_ones_are_logged() -> None:
    storage, reader = EventStorage(), LossReader()
    for step, value in enumerate([1.0, math.nan, math.inf]):
        reader.add(step, losses(value, 1.0), 0.0, [{"image_id": 10 + step}, {"file_name": "x.jpg"}])
    not_finite = reader.read(storage)
    assert not_finite is not None
    assert not_finite.iteration == 1
    assert "a=nan, b=1 for the images [11, 'x.jpg']" in not_finite.problem
    assert [at for _, at in scalars(storage)["a"]] == [0]
    assert reader.read(storage) is None, "each step is read once"


@pytest.mark.parametrize("period", [1, 4])
def test_a_number_is_copied_from_the_device_once_in_a_period(period: int) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten._to_copy):
                copies.append(func)
            return func(*args, **(kwargs or {}))

    storage, reader = EventStorage(), LossReader()
    with Copies():
        for step in range(8):
            reader.add(step, losses(1.0, 2.0), 0.0, [])
            if (step + 1) % period == 0:
                reader.read(storage)
    assert not copies, "tolist() of one tensor reads all numbers"
    assert len(scalars(storage)["a"]) == 8
