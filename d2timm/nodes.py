"""The nodes of ``lazy_configs/common`` as plain data, for a front-end that does not wait for torch.

A node file names classes of torch, timm and detectron2, so to read it takes the seconds that they take to
import. What has been read is kept in the cache, with a fingerprint of all that it depends on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .cache import cache_root
from .config import PLACES, load, root, to_plain
from .data.places import found
from .files import whole

__all__ = ["Nodes", "read_nodes"]

PACKAGES = ("torch", "timm", "detectron2", "sal-detectron2")  # the last: detectron2 on the package index
#: What decides whether torch finds a GPU, which a node asks
GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Nodes:
    """All options, and all names of models.

    Attributes:
        options: group -> option -> place in the tree -> what stands there (nothing for ``none``).
        names: what ``timm.list_models`` gives.
    """

    options: dict[str, dict[str, dict[str, Any]]]
    names: list[str]


def read_nodes() -> Nodes:
    """The nodes of all groups; from the cache, unless something has changed since."""
    folder = root() / "common"
    file = cache_root() / f"nodes-{hashlib.sha1(str(folder).encode()).hexdigest()[:12]}.json"
    return _read(folder, file, fingerprint(folder))


@functools.lru_cache(maxsize=1)
def _read(folder: Path, file: Path, state: str) -> Nodes:
    try:
        kept = json.loads(file.read_text())
        if kept["state"] == state:
            return Nodes(kept["options"], kept["names"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none yet, or not one of ours
    nodes = load_nodes(folder)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as partial:
            partial.write_text(json.dumps({"state": state, **asdict(nodes)}))
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return nodes


def load_nodes(folder: Path) -> Nodes:
    """Read all node files."""
    import timm  # by now it is time to wait for torch

    options: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*/*.py")):
        parts = to_plain(load(file))
        group = file.parent.name
        places = {PLACES.get(name, name): node for name, node in parts.items()}
        options.setdefault(group, {})[file.stem] = places
    return Nodes(options, timm.list_models())


def fingerprint(folder: Path) -> str:
    """Changes with everything that the nodes depend on: files, versions, and what they ask of the machine."""
    digest = hashlib.sha1()
    for file in [*sorted(folder.rglob("*.py")), *sorted(Path(__file__).parent.rglob("*.py"))]:
        digest.update(f"{file}\n".encode() + file.read_bytes())
    gpus = sorted(str(device) for device in Path("/dev").glob("nvidia*"))
    asked = [*map(_version, PACKAGES), found(), gpus, Path("/dev/kfd").exists(), *map(os.environ.get, GPUS)]
    digest.update(json.dumps(asked).encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
