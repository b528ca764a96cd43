"""The zoo table: which models a test run checks, and ``zoo.json`` and ``docs/zoo.md`` from its results."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import timm
from helpers.sampling import code_of

from d2timm.backbone import zoo_table
from d2timm.backbone.zoo_table import Row
from d2timm.utils.files import atomic_write

CODE = Path(zoo_table.__file__).parent  # what the table depends on
DOCS = Path(__file__).parents[2] / "docs"
SAMPLED = 100  # one model in so many

HEADING = """# The zoo: timm {version}

All {models} models of timm {version} as backbones with default arguments, written by
`scripts/check_zoo.py`. Each gives four levels of strides 4, 8, 16 and 32 on the grid of the image as given,
at any image size. `d2timm zoo` shows, filters and sorts the same table.

How images of any size reach the models:

| route | models |
|---|---|
{routes}

*any size*: as they are. *dynamic size*: by the model's own option. *padding*: with zeros on the right and
at the bottom, up to the multiple. *multi-size*: the model runs as if it had been created for the size of
the image, with the weights of its native size. *resizing*: the model takes images of one size only, and each
image is resized to it.

*Native strides* are the strides of the timm features that the levels are made of; a level of another stride
is resampled. *Parameters* (in millions) include resampling and exclude the classifier.
*Multiply-adds* (in billions) are counted for one image of 512 x 512 pixels.

| model | kind | route | channels | native strides | parameters (M) | multiply-adds (G) |
|---|---|---|---|---|---|---|
"""


def select(pattern: str | None) -> list[str]:
    """Names of the models to check on ``meta``.

    Args:
        pattern: as in a shell. None: a sample, or all models if the code that the table depends on has
            changed since it was written.
    """
    if pattern is not None:
        return timm.list_models(pattern)
    return sample() if recorded_fingerprint() == fingerprint() else timm.list_models()


def sample() -> list[str]:
    """The smallest model of each kind and route, and one in a hundred of the others."""
    rows = zoo_table.read_rows()
    smallest: dict[tuple[str, str], str] = {}
    for row in sorted(rows, key=lambda row: row["parameters"]):
        smallest.setdefault((row["kind"], row["route"].partition(" to ")[0]), row["model_name"])
    return sorted({*smallest.values(), *(row["model_name"] for row in rows[::SAMPLED])})


def smallest_of_each_module(rows: Sequence[Row], pattern: str = "*") -> list[str]:
    """The model with the fewest parameters of each module of timm, among those whose names match."""
    parameters = {row["model_name"]: row["parameters"] for row in rows}
    modules = (timm.list_models(module=module) for module in timm.list_modules())
    found = (
        [name for name in names if name in parameters and fnmatchcase(name, pattern)] for names in modules
    )
    return sorted({min(names, key=lambda name: parameters[name]) for names in found if names})


def fingerprint(code: Path = CODE) -> str:
    """A hash of timm's version and of the modules in a folder, without their docstrings and comments."""
    digest = hashlib.sha256(timm.__version__.encode())
    for file in sorted(code.glob("*.py")):
        digest.update(code_of(file.read_text()).encode())
    return digest.hexdigest()[:16]


def recorded_fingerprint() -> str:
    """The fingerprint of the code that the table was written with."""
    return str(json.loads(zoo_table.FILE.read_text()).get("fingerprint"))


def write(rows: Sequence[Row], table: Path = zoo_table.FILE, docs: Path = DOCS) -> None:
    """Write ``zoo.json`` to ``table``, and ``zoo.md``, a line for each model, into ``docs``."""
    rows = sorted(rows, key=lambda row: timm.list_models().index(row["model_name"]))
    body = ",\n".join(map(json.dumps, rows))
    head = f'{{"timm": "{timm.__version__}", "fingerprint": "{fingerprint()}", "models": [\n'
    with atomic_write(table) as file:
        file.write_text(f"{head}{body}\n]}}\n")
    routes = Counter(row["route"].partition(",")[0].partition(" to ")[0] for row in rows)
    lines = "\n".join(f"| {route} | {count} |" for route, count in routes.most_common())
    heading = HEADING.format(version=timm.__version__, models=len(rows), routes=lines)
    with atomic_write(docs / "zoo.md") as file:
        file.write_text(heading + "".join(_lines(rows)))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        numbers = (" ".join(f"{value:g}" for value in row[key]) for key in ("channels", "native_strides"))
        costs = (f"{row['parameters'] / 1e6:.2f}", f"{row['multiply_adds'] / 1e9:.2f}")
        yield f"| {' | '.join([row['model_name'], row['kind'], row['route'], *numbers, *costs])} |\n"
