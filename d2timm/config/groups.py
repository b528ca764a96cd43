"""The nodes of ``lazy_configs/common`` as plain data, for a front-end that does not wait for torch.

A node file names classes of torch, timm and detectron2, so to read it takes the seconds that they take to
import. What has been read is kept in the cache, with a fingerprint of all that it depends on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..data.paths import default_dataset
from ..modeling.traits import Traits
from ..utils.files import PACKAGE, atomic_write, cache_root, resource_folder
from .lazy import PLACES, load, to_plain

__all__ = ["Nodes", "read_nodes"]

PACKAGES = ("torch", "timm", "detectron2", "sal-detectron2")  # the last: detectron2 on the package index
#: What decides whether torch finds a GPU, which a node asks
GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Nodes:
    """All options, all names of models, and the traits of all classes.

    Attributes:
        options: group -> option -> place in the tree -> the node there (None for ``none``).
        names: all of ``timm.list_models()``.
        traits: ``_target_`` -> what it declares, or None, for every target in the options.
    """

    options: dict[str, dict[str, dict[str, Any]]]
    names: list[str]
    traits: dict[str, Traits | None]


def read_nodes() -> Nodes:
    """The nodes of all groups; from the cache, unless something has changed since."""
    folder = resource_folder("lazy_configs") / "common"
    file = cache_root() / f"nodes-{hashlib.sha1(str(folder).encode()).hexdigest()[:12]}.json"
    return _read(folder, file, fingerprint(folder))


@functools.lru_cache(maxsize=1)
def _read(folder: Path, file: Path, state: str) -> Nodes:
    try:
        kept = json.loads(file.read_text())
        if kept["state"] == state:
            traits = {
                name: Traits.from_dict(values) if values else None for name, values in kept["traits"].items()
            }
            return Nodes(kept["options"], kept["names"], traits)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none yet, or not one of ours
    nodes = load_nodes(folder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            partial.write_text(json.dumps({"state": state, **asdict(nodes)}))
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return nodes


def load_nodes(folder: Path) -> Nodes:
    """Read all node files."""
    import timm  # torch takes seconds to import, which cached nodes do without
    from detectron2.utils.registry import locate

    from ..modeling.detectron2_traits import traits_of

    options: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*/*.py")):
        parts = to_plain(load(file))
        group = file.parent.name
        places = {PLACES.get(name, name): node for name, node in parts.items()}
        options.setdefault(group, {})[file.stem] = places
    traits = {target: traits_of(locate(target)) for target in sorted(set(_targets(options)))}
    return Nodes(options, timm.list_models(), traits)


def _targets(node: Any) -> Iterator[str]:
    """The ``_target_`` of every node in a tree."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str) and "${" not in node["_target_"]:
            yield node["_target_"]
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        yield from _targets(value)


def fingerprint(folder: Path) -> str:
    """Changes with everything that the nodes depend on: files, versions, and what they ask of the machine."""
    digest = hashlib.sha1()
    for file in [*sorted(folder.rglob("*.py")), *sorted(PACKAGE.rglob("*.py"))]:
        digest.update(f"{file}\n".encode() + file.read_bytes())
    gpus = sorted(str(device) for device in Path("/dev").glob("nvidia*"))
    asked = [
        *map(_version, PACKAGES),
        default_dataset(),
        gpus,
        Path("/dev/kfd").exists(),
        *map(os.environ.get, GPUS),
    ]
    digest.update(json.dumps(asked).encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
