"""Read a yacs config: plain YAML, what it inherits, and the defaults of all that it does not say."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config

from ...errors import ConfigError
from ...utils.checks import suggest
from ...utils.trees import flatten

__all__ = ["Old", "read"]

BASE = "_BASE_"
#: What detectron2_timm adds to detectron2's keys, with its defaults (detectron2_timm/config/defaults.py)
ADDED: dict[str, Any] = {
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.BACKBONE.CONFIG.REMOVE_LAYERS": [],
    "MODEL.BACKBONE.CONFIG.REMAPS": [],
    "MODEL.BACKBONE.CONFIG.OUT_FEATURES": [],
    "MODEL.BACKBONE.CONFIG.STRIDES": [],
    "MODEL.BACKBONE.CONFIG.PRETRAINED": False,
    "MODEL.BACKBONE.CONFIG.CHANNELS": [],
    "MODEL.BACKBONE.CONFIG.REPLACE_LAYERS": [[]],
    "MODEL.BACKBONE.CONFIG.FREEZE_LAYERS": [],
    "INPUT.FIXED_INPUT_SIZE": True,
    "SOLVER.OPTIMIZER": "SGD",  # of neither, but of many projects that build on detectron2
}


@dataclass(frozen=True)
class Old:
    """A config as detectron2_timm would see it.

    Attributes:
        name: of the file.
        values: key -> value, for every key that there is; sequences are lists.
        defaults: key -> what it is where no file says it.
        given: keys that the file, what it inherits or the command line says.
        repeated: keys that a mapping of the file has twice, of which the last counts.
    """

    name: str
    values: dict[str, Any]
    defaults: dict[str, Any]
    given: frozenset[str]
    repeated: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def changed(self) -> list[str]:
        """Keys that differ from their defaults."""
        return [key for key, value in self.values.items() if value != self.defaults[key]]


class _Loader(yaml.SafeLoader):
    """Plain YAML: no tag that runs code. Notes the keys that a mapping has twice."""

    repeated: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        self.repeated += sorted({name for name in names if names.count(name) > 1})
        return super().construct_mapping(node, deep)


def read(path: Path, opts: Sequence[str] = ()) -> Old:
    """Read a config, what it inherits by ``_BASE_``, and the defaults.

    Args:
        path: a .yaml file in the schema of detectron2_timm or detectron2.
        opts: keys and values in turn, which come last, as detectron2's command line takes them.

    Raises:
        ConfigError: a file that is not there or not plain YAML, a key or a kind of value that yacs refuses.
    """
    repeated: list[str] = []
    tree = _load(path, (), repeated)
    if "MODEL" not in tree:
        raise ConfigError(f"{path} has no MODEL: a config of detectron2_timm or detectron2 is needed")
    latest = _defaults()
    version = tree.get("VERSION", latest.VERSION)
    if version not in range(1, latest.VERSION + 1):
        raise ConfigError(f"{path}: VERSION={version}: detectron2 knows 1 to {latest.VERSION}")
    cfg = latest.clone() if version == latest.VERSION else downgrade_config(latest, version)
    given = _check_keys(str(path), tree, cfg)
    try:
        cfg.merge_from_other_cfg(CfgNode(tree))
        if version != latest.VERSION:
            cfg = upgrade_config(cfg)
        given |= _merge_opts(cfg, opts)
    except (ValueError, AssertionError, KeyError) as error:  # a value of another kind than the default
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    values, defaults = _leaves(cfg), _leaves(latest)
    return Old(path.name, values, defaults, frozenset(given), tuple(repeated))


def _defaults() -> CfgNode:
    cfg = get_cfg()
    for key, value in ADDED.items():
        node = cfg
        *owners, name = key.split(".")
        for owner in owners:
            node = node.setdefault(owner, CfgNode())
        node[name] = value
    return cfg


def _load(path: Path, children: tuple[Path, ...], repeated: list[str]) -> dict[str, Any]:
    """A file merged into those that it inherits."""
    if path.resolve() in children:
        raise ConfigError(f"{path}: {BASE} leads back to itself")
    try:
        loader = _Loader(path.read_text())
        loader.repeated = repeated
        tree = loader.get_single_data()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except yaml.constructor.ConstructorError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(
            f"{path}: {error.problem}{line}: only plain YAML is read, as other tags run code; write the value"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: it holds no config")
    bases = tree.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE}={bases}: a file is needed, or a list of files")
    merged: dict[str, Any] = {}
    for base in bases:
        _merge(_load(_base(path, base), (*children, path.resolve()), repeated), merged)
    _merge(tree, merged)
    return merged


def _base(path: Path, base: str) -> Path:
    """The file that ``_BASE_`` names: beside the one that names it, or else of those of detectron2."""
    if "://" in base:
        raise ConfigError(f"{path}: {BASE}={base}: only files are read; download it")
    file = path.parent / Path(base).expanduser()
    if file.is_file():
        return file
    configs = Path(str(files("detectron2.model_zoo"))) / "configs"
    parts = [part for part in Path(base).parts if part not in ("..", ".", "/")]
    for start in range(len(parts)):
        if (configs.joinpath(*parts[start:])).is_file():
            return configs.joinpath(*parts[start:])
    raise ConfigError(f"{path}: {BASE}={base}: no such file, {file} nor among detectron2's own configs")


def _merge(tree: Mapping[str, Any], into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(value, into[key])
        else:
            into[key] = value


def _check_keys(where: str, tree: Mapping[str, Any], cfg: CfgNode) -> set[str]:
    """The keys of a tree; raises ConfigError with near matches for those that there are not."""
    known = _leaves(cfg)
    given = list(_leaves(tree))
    unknown = [key for key in given if key not in known]
    if unknown:
        more = f" ({len(unknown)} such keys)" if len(unknown) > 1 else ""
        raise ConfigError(f"{where}: there is no key {unknown[0]}{more}: {suggest(unknown[0], known)}")
    return set(given)


def _merge_opts(cfg: CfgNode, opts: Sequence[str]) -> set[str]:
    """Merge keys and values in turn, in place; returns the keys."""
    if len(opts) % 2:
        raise ConfigError(f"--opts {' '.join(opts)}: a key and a value in turn are needed")
    known = _leaves(cfg)
    for key in opts[::2]:
        if key not in known:
            raise ConfigError(f"--opts: there is no key {key}: {suggest(key, known)}")
    cfg.merge_from_list(list(opts))
    return set(opts[::2])


def _leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in flatten(tree).items()}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
