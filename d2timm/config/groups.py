"""The options of all groups, the nodes in ``lazy_configs/common``, as plain data that needs no torch.

A node file imports classes of torch, timm and detectron2, which takes seconds. The nodes are therefore cached
as JSON, with a fingerprint of everything that they depend on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..data.paths import default_dataset
from ..modeling.traits import Traits
from ..utils.files import PACKAGE, atomic_write, cache_root, resource_folder
from .lazy import PLACES, load, target_name, to_plain

__all__ = ["Nodes", "describe_option", "option_nodes", "read_nodes", "target_of"]

PACKAGES = ("torch", "timm", "detectron2", "sal-detectron2")  # the last: detectron2 on the package index
#: Variables that hide GPUs from torch; the node ``train`` depends on whether there is a GPU
GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Nodes:
    """The options of all groups, the names of all timm models, and the traits of all classes.

    Attributes:
        options: group -> option -> place in the tree -> the node there; ``roi_heads=none`` has no places.
        names: all of ``timm.list_models()``.
        traits: ``_target_`` -> what the class declares, or None, for every ``_target_`` in the options.
    """

    options: dict[str, dict[str, dict[str, Any]]]
    names: list[str]
    traits: dict[str, Traits | None]


def read_nodes() -> Nodes:
    """Read the options of all groups, from the cache unless something has changed since."""
    folder = resource_folder("lazy_configs") / "common"
    file = cache_root() / f"nodes-{hashlib.sha1(str(folder).encode()).hexdigest()[:12]}.json"
    return _read(folder, file, fingerprint(folder))


def option_nodes(group: str) -> dict[str, Any]:
    """Option -> node of a group; the node of ``roi_heads=none`` is None."""
    return {name: places.get(PLACES[group]) for name, places in read_nodes().options[group].items()}


def describe_option(group: str, node: DictConfig) -> str:
    """Describe a node by its option, ``group=option``, or by its ``_target_`` if no option is like it.

    Args:
        group: a key of ``PLACES``.
        node: the node at the group's place in a tree; overrides may have changed its values.
    """

    def targets(node: Any) -> list[str]:
        return [target_of(node), target_of(node.get("top_block"))]

    nodes = {name: other for name, other in option_nodes(group).items() if other}
    alike = [name for name, other in nodes.items() if targets(other) == targets(node)]
    same_norm = [name for name in alike if nodes[name].get("norm") == node.get("norm")]
    names = same_norm or alike
    return f"{group}={names[0]}" if names else f"{PLACES[group]}._target_={target_of(node)}"


def target_of(node: Any) -> str:
    """The dotted name of a node's ``_target_``; "" if it has none."""
    return target_name(node.get("_target_", "")) if isinstance(node, (dict, DictConfig)) else ""


@functools.lru_cache(maxsize=1)
def _read(folder: Path, file: Path, state: str) -> Nodes:
    try:
        cached = json.loads(file.read_text())
        if cached["state"] == state:
            traits = {
                name: Traits.from_dict(values) if values else None
                for name, values in cached["traits"].items()
            }
            return Nodes(cached["options"], cached["names"], traits)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is no cache yet, or its content is not valid
    nodes = load_nodes(folder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            partial.write_text(json.dumps({"state": state, **asdict(nodes)}))
    except OSError:
        pass  # without a cache the next process is slower, which is not an error
    return nodes


def load_nodes(folder: Path) -> Nodes:
    """Load all node files, which imports torch, timm and detectron2."""
    import timm

    from ..modeling.detectron2_traits import traits_of

    options: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*/*.py")):
        parts = to_plain(load(file))
        group = file.parent.name
        places = {PLACES.get(name, name): node for name, node in parts.items()}
        options.setdefault(group, {})[file.stem] = places
    traits = {target: traits_of(pkgutil.resolve_name(target)) for target in sorted(set(_targets(options)))}
    return Nodes(options, timm.list_models(), traits)


def _targets(node: Any) -> Iterator[str]:
    """Yield the ``_target_`` of every node in a tree."""
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str) and "${" not in node["_target_"]:
            yield node["_target_"]
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        yield from _targets(value)


def fingerprint(folder: Path) -> str:
    """Hash everything that the nodes depend on: source files, versions of packages, GPUs and datasets.

    Of source files it is the times of their last changes, which take less time to read than their contents.
    """
    digest = hashlib.sha1()
    for file in [*sorted(folder.rglob("*.py")), *sorted(PACKAGE.rglob("*.py"))]:
        state = file.stat()
        digest.update(f"{file} {state.st_mtime_ns} {state.st_size}\n".encode())
    gpus = sorted(str(device) for device in Path("/dev").glob("nvidia*"))
    machine = [
        *map(_version, PACKAGES),
        default_dataset(),
        gpus,
        Path("/dev/kfd").exists(),
        *map(os.environ.get, GPUS),
    ]
    digest.update(json.dumps(machine).encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
