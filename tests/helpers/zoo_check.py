"""Hold every model of timm against the contract of a backbone.

Each model is checked by itself, in a process of a pool, and its row is appended to a file of JSON lines, so
that a run that was cut off goes on where it was.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeAlias

import timm
import torch
from torch import Tensor
from tqdm import tqdm

from .backbone.description import count, kind, multiply_adds, on_meta
from .backbone.meta import MetaRun
from .backbone.pruning import Used
from .backbone.timm_backbone import TimmBackbone
from .errors import ConfigError
from .utils.files import atomic_write
from .utils.quiet import silence
from .utils.sizes import Size

__all__ = [
    "SIZES",
    "check",
    "check_all",
    "check_real",
    "read_tables",
    "smallest_of_each_module",
    "write_tables",
]

Row: TypeAlias = dict[str, Any]

#: Native to many; a multiple of 32 that is not square; two that nothing divides, of COCO's proportions
SIZES: tuple[Size, ...] = ((224, 224), (320, 448), (333, 500), (800, 1333))
REAL_SIZES: tuple[Size, ...] = ((192, 256), (161, 223))
COST_SIZE: Size = (512, 512)


def check(model_name: str) -> Row:
    """Hold a model against the contract on ``meta``: outputs at ``SIZES``, stages, cost.

    Returns:
        What ``docs/zoo.md`` says of it; an ``error`` if it does not keep the contract.
    """
    backbone = on_meta(model_name).eval()
    source = backbone.spec
    for size in SIZES:
        with torch.no_grad(), MetaRun():
            outputs = backbone(torch.empty(1, source.channels, *size, device="meta"))
        check_outputs(backbone, outputs, 1, size)
    check_stages(backbone)
    return {
        "model_name": model_name,
        "kind": kind(source),
        "route": str(source.input_spec),
        "indices": list(backbone.out_indices),
        "channels": [shape.channels for shape in backbone.output_shape().values()],
        "native_strides": [source.features[i].stride for i in backbone.out_indices],
        "parameters": count(backbone),
        "multiply_adds": multiply_adds(backbone, torch.empty(1, source.channels, *COST_SIZE, device="meta")),
    }


def check_real(model_name: str) -> Row:
    """Hold a model against the contract on the CPU, forwards and backwards at ``REAL_SIZES``."""
    torch.manual_seed(0)
    backbone = TimmBackbone(model_name)
    used: set[int] = set()
    for size in REAL_SIZES:
        images = torch.randn(2, backbone.spec.channels, *size)
        with Used() as training:
            outputs = backbone.train()(images)
        check_outputs(backbone, outputs, 2, size)
        torch.stack([x.square().mean() for x in outputs.values()]).sum().backward()
        check_gradients(backbone)
        backbone.zero_grad()
        used |= training.ids | _used_without_gradients(backbone.eval(), images)
    # buffers are asked for now, because a model may make them in its first run
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    if any(id(x) not in used for x in tensors.values()):
        # what only images of the native size need
        images = torch.randn(1, backbone.spec.channels, *backbone.spec.trial_size)
        used |= _used_without_gradients(backbone.eval(), images)
    if idle := [name for name, x in tensors.items() if id(x) not in used]:
        raise AssertionError(f"nothing uses {', '.join(idle)}")
    return {"model_name": model_name, "route": str(backbone.spec.input_spec), "parameters": count(backbone)}


def _used_without_gradients(backbone: TimmBackbone, images: Tensor) -> set[int]:
    with Used() as used, torch.no_grad():
        backbone(images)
    ids: set[int] = used.ids
    return ids


def check_gradients(backbone: TimmBackbone) -> None:
    """Raise AssertionError unless each parameter that requires a gradient has a finite one."""
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            raise AssertionError(f"{name} gets no gradient")
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise AssertionError(f"the gradient of {name} is not finite")


def check_outputs(backbone: TimmBackbone, outputs: dict[str, Tensor], batch: int, size: Size) -> None:
    """Raise AssertionError unless outputs are as declared, on the grids of the image, and finite."""
    declared = backbone.output_shape()
    if list(outputs) != list(declared):
        raise AssertionError(f"outputs {list(outputs)}, declared {list(declared)}")
    for name, x in outputs.items():
        stride = declared[name].stride
        grid = (math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        if tuple(x.shape) != (batch, declared[name].channels, *grid):
            raise AssertionError(f"{name} is {tuple(x.shape)} at {size}, declared {declared[name]}")
        if not x.is_meta and not x.isfinite().all():
            raise AssertionError(f"{name} is not finite at {size}")


def check_stages(backbone: TimmBackbone) -> None:
    """Raise AssertionError unless each parameter belongs to a stage and to a layer, numbered without gaps."""
    for coarse in (True, False):
        number = backbone.stage_of_parameters(coarse)
        if set(number) != {name for name, _ in backbone.model.named_parameters()}:
            raise AssertionError("parameters without a stage")
        if set(number.values()) != set(range(max(number.values()) + 1)):
            raise AssertionError("stages are numbered with gaps")


def check_all(names: Sequence[str], checked: Callable[[str], Row], jobs: int, state: Path) -> list[Row]:
    """Check models, several at a time, going on from an earlier run.

    Args:
        names: of timm.
        checked: ``check`` or ``check_real``.
        jobs: processes.
        state: file of JSON lines; rows of an earlier run with the same timm are taken from it.

    Returns:
        A row a model, in the order of ``names``; those that failed have an ``error``.
    """
    rows = {row["model_name"]: row for row in _read(state) if "error" not in row}
    left = [name for name in names if name not in rows]
    state.parent.mkdir(parents=True, exist_ok=True)
    if state.is_file() and not state.read_text().endswith("\n"):
        state.write_text(state.read_text() + "\n")  # a line that was being written when a run was cut off
    with state.open("a") as lines, tqdm(total=len(names), initial=len(names) - len(left)) as bar:
        for row in _in_pool(left, checked, jobs):
            rows[row["model_name"]] = row
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            bar.update()
            if "error" in row:
                bar.write(f"{row['model_name']}: {row['error']}")
    return [rows[name] for name in names]


def _in_pool(names: Sequence[str], checked: Callable[[str], Row], jobs: int) -> Iterator[Row]:
    """Rows as they come. A process that dies is told as the error of its model, and the others go on."""
    left = list(names)
    context = multiprocessing.get_context("spawn")  # no state of torch is inherited
    while left:
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=silence) as pool:
            tasks = {pool.submit(_guarded, checked, name): name for name in left}
            try:
                for task in as_completed(tasks):
                    row = task.result()
                    left.remove(tasks[task])
                    yield row
            except BrokenProcessPool as error:
                if jobs == 1:  # the first that is left was being checked
                    yield {"model_name": left.pop(0), "error": f"its process died: {error}"}
                jobs = 1


@functools.cache
def _settle_in() -> None:
    """Once a process: one core each, and no time for garbage among what was imported."""
    torch.set_num_threads(1)
    gc.freeze()
    atexit.register(gc.unfreeze)


def _guarded(checked: Callable[[str], Row], name: str) -> Row:
    _settle_in()
    try:
        return {"timm": timm.__version__, **checked(name)}
    except Exception as error:
        # whatever a model does wrong is what is being looked for
        reason = " ".join(str(error).split())
        return {"timm": timm.__version__, "model_name": name, "error": f"{type(error).__name__}: {reason}"}


def _read(state: Path) -> list[Row]:
    if not state.is_file():
        return []
    rows = []
    for line in state.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a line that was cut off
    return [row for row in rows if row.get("timm") == timm.__version__]


def read_tables(folder: Path) -> list[Row]:
    """The rows of ``zoo.json``.

    Raises:
        ConfigError: there is none for this timm.
    """
    file = folder / "zoo.json"
    table = json.loads(file.read_text()) if file.is_file() else {}
    if table.get("timm") != timm.__version__:
        raise ConfigError(f"{file} does not tell of timm {timm.__version__}: run scripts/check_zoo.py first")
    rows: list[Row] = table["models"]
    return rows


def smallest_of_each_module(rows: Sequence[Row], among: Sequence[str]) -> list[str]:
    """The model with the fewest parameters of each module of timm, of those named."""
    parameters = {row["model_name"]: row["parameters"] for row in rows}
    modules = (timm.list_models(module=module) for module in timm.list_modules())
    covered = ([name for name in names if name in parameters and name in among] for names in modules)
    return sorted({min(names, key=lambda name: parameters[name]) for names in covered if names})


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """Write ``zoo.md``, a line a model, and ``zoo.json``."""
    with atomic_write(folder / "zoo.json") as file:
        body = ",\n".join(json.dumps({k: v for k, v in row.items() if k != "timm"}) for row in rows)
        file.write_text(f'{{"timm": "{timm.__version__}", "models": [\n{body}\n]}}\n')
    routes: dict[str, int] = {}
    for row in rows:
        route = row["route"].partition(",")[0].partition(" to ")[0]
        routes[route] = routes.get(route, 0) + 1
    told = "\n".join(f"| {route} | {n} |" for route, n in sorted(routes.items(), key=lambda item: -item[1]))
    table = HEADING.format(version=timm.__version__, models=len(rows), routes=told)
    with atomic_write(folder / "zoo.md") as file:
        file.write_text(table + "".join(map(_line, rows)))


def _line(row: Row) -> str:
    cells = [
        row["model_name"],
        row["kind"],
        row["route"],
        _join(row["channels"]),
        _join(row["native_strides"]),
    ]
    cells += [f"{row['parameters'] / 1e6:.2f}", f"{row['multiply_adds'] / 1e9:.2f}"]
    return f"| {' | '.join(cells)} |\n"


HEADING = """# The zoo: timm {version}

All {models} models of timm {version} as backbones with default arguments, written by
`scripts/check_zoo.py`. Each gives four levels of strides 4, 8, 16 and 32 on the grid of the image as given,
at any image size. The same as JSON: [zoo.json](zoo.json).

How images of any size reach the models:

| route | models |
|---|---|
{routes}

*any size*: as they are. *dynamic size*: the model is told to follow the image. *padding*: zeros on the right
and below, up to the multiple. *canvas*: the model is run as if it had been made for the image, with weights
of its native size. *resizing*: the model takes images of one size only, and sees each resized to that.

*Native strides* are those of the timm features that the levels are made of; where one is not the level's,
the level is resampled. *Parameters* (in millions) are those of the backbone, resampling included and the
classifier not. *Multiply-adds* (in billions) are those of one image of 512 x 512 pixels.

| model | kind | route | channels | native strides | parameters (M) | multiply-adds (G) |
|---|---|---|---|---|---|---|
"""


def _join(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
