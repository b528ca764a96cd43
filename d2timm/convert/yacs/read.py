"""Read a yacs config: plain YAML, the files it inherits from, and the defaults of all other keys."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config

from ...errors import ConfigError
from ...utils.checks import suggest
from ...utils.text import one_line
from ...utils.trees import flatten

__all__ = ["OldConfig", "read"]

BASE = "_BASE_"
#: What detectron2_timm adds to ``MODEL.BACKBONE``, with its defaults (detectron2_timm/config/defaults.py)
CONFIG: dict[str, Any] = {
    "REMOVE_LAYERS": [],
    "REMAPS": [],
    "OUT_FEATURES": [],
    "STRIDES": [],
    "PRETRAINED": False,
    "CHANNELS": [],
    "REPLACE_LAYERS": [[]],
    "FREEZE_LAYERS": [],
}


@dataclass(frozen=True)
class OldConfig:
    """A config as detectron2_timm sees it.

    Attributes:
        name: name of the file.
        values: key -> value for every key of the schema; sequences are lists.
        defaults: key -> default value.
        given: keys that the file, the files it inherits from or ``--opts`` set.
        repeated: keys that a mapping of a file contains twice; the last one counts.
    """

    name: str
    values: dict[str, Any]
    defaults: dict[str, Any]
    given: frozenset[str]
    repeated: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


class _Loader(yaml.SafeLoader):
    """Loads plain YAML, without tags that run code, and collects keys that a mapping contains twice."""

    repeated: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        self.repeated += sorted({name for name in names if names.count(name) > 1})
        return super().construct_mapping(node, deep)


def read(path: Path, opts: Sequence[str] = ()) -> OldConfig:
    """Read a config, the files it inherits from by ``_BASE_``, and the defaults.

    Args:
        path: a .yaml file in the schema of detectron2_timm or detectron2.
        opts: alternating keys and values, merged last, as on detectron2's command line.

    Raises:
        ConfigError: the file is missing or not plain YAML, or yacs rejects a key or the type of a value.
    """
    if len(opts) % 2:
        raise ConfigError(f"--opts {' '.join(opts)}: give keys and values in turn")
    repeated: list[str] = []
    tree = _load(path, (), repeated)
    if "MODEL" not in tree:
        raise ConfigError(f"{path} has no MODEL: give a config of detectron2_timm or detectron2")
    latest = _defaults()
    version = tree.get("VERSION", latest.VERSION)
    if version not in range(1, latest.VERSION + 1):
        raise ConfigError(f"{path}: VERSION={version}: detectron2 knows 1 to {latest.VERSION}")
    cfg = latest.clone() if version == latest.VERSION else downgrade_config(latest, version)
    given = [*_leaves(tree), *opts[::2]]
    _check_keys(str(path), _leaves(tree), cfg)
    _check_keys("--opts", opts[::2], latest)
    try:
        cfg.merge_from_other_cfg(CfgNode(tree))
        if version != latest.VERSION:
            cfg = upgrade_config(cfg)
        cfg.merge_from_list(list(opts))
    except (ValueError, AssertionError, KeyError) as error:  # a value has another type than the default
        raise ConfigError(f"{path}: {one_line(error)}") from None
    values, defaults = _leaves(cfg), _leaves(latest)
    # version 1 has other names for some keys: those that it sets differ from the defaults
    set_keys = frozenset(key for key in values if key in given or values[key] != defaults[key])
    return OldConfig(path.name, values, defaults, set_keys, tuple(repeated))


def _defaults() -> CfgNode:
    """detectron2_timm's schema and defaults."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.BACKBONE.CONFIG = CfgNode(CONFIG)
    cfg.INPUT.FIXED_INPUT_SIZE = True
    cfg.SOLVER.OPTIMIZER = "SGD"  # in neither project, but in many that build on detectron2
    return cfg


def _load(path: Path, children: tuple[Path, ...], repeated: list[str]) -> dict[str, Any]:
    """Load a file, merged into the files that it inherits from."""
    if path.resolve() in children:
        raise ConfigError(f"{path}: {BASE} leads back to the file itself")
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
            f"{path}: {error.problem}{line}: only plain YAML is read, because other tags run code; write "
            "the value itself"
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} does not contain a config")
    bases = tree.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE}={bases}: give a file or a list of files")
    merged: dict[str, Any] = {}
    for base in bases:
        _merge(_load(_find_base(path, base), (*children, path.resolve()), repeated), merged)
    _merge(tree, merged)
    return merged


def _find_base(path: Path, base: str) -> Path:
    """The file that ``_BASE_`` names: relative to the file that names it, or one of detectron2's configs."""
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
    raise ConfigError(f"{path}: {BASE}={base}: no such file, neither {file} nor one of detectron2's configs")


def _merge(tree: Mapping[str, Any], into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(value, into[key])
        else:
            into[key] = value


def _check_keys(where: str, keys: Collection[str], cfg: CfgNode) -> None:
    """Raise ConfigError with near matches if ``cfg`` lacks one of the keys."""
    known = _leaves(cfg)
    unknown = [key for key in keys if key not in known]
    if unknown:
        more = f" ({len(unknown)} such keys)" if len(unknown) > 1 else ""
        raise ConfigError(f"{where}: unknown key {unknown[0]}{more}: {suggest(unknown[0], known)}")


def _leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in flatten(tree).items() if value != {}}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
