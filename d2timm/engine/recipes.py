"""``train.recipe``: settings of a training that fit the kind of its backbone, from published ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ..backbone import TimmBackbone
from ..config.lazy import get_config, load, to_plain
from ..data.catalog import get_dataset
from ..data.datasets.coco import CustomDataset
from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.text import one_line
from .family import Family, family_of

__all__ = ["apply_recipe", "describe_recipe", "given_keys", "recipe_keys"]

TABLE = "common/priors.py"
AUTO = "auto"
OPTIMIZER, OPT, LR = "optimizer", "optimizer.opt", "optimizer.lr"
REFERENCE = "train.reference_batch_size"
DROP_PATH = "model.backbone.bottom_up.drop_path_rate"
EPOCHS = "train.epochs"


def apply_recipe(cfg: DictConfig, given: Collection[str] = ()) -> dict[str, Any]:
    """Set what the recipe of a config says and the user does not, in place.

    Args:
        cfg: the tree, its dataset resolved; ``train.recipe`` is the name of a prior, ``auto``, or a Python
            file with a table like that of d2timm, and becomes None. ``optimizer.opt=auto`` without it is the
            recipe of the optimizer alone.
        given: keys that the user has set, which stay, and with them the values below them.

    Returns:
        ``name``, ``source`` and ``values`` of what was applied, and whether such a backbone
        ``starts_slowly``; nothing without a recipe.

    Raises:
        ConfigError: there is no such recipe, or the config has another optimizer than timm's.
    """
    recipe, only_optimizer = cfg.train.get("recipe"), False
    if cfg.optimizer.get("opt") == AUTO:
        recipe, only_optimizer = recipe or AUTO, not recipe
        given = {*given} - {OPTIMIZER, OPT}
    if not recipe:
        return {}
    family = family_of(cfg.model.backbone.bottom_up.model_name)
    name, prior = _choose(recipe, family)
    values = _values(cfg, prior, family, given, only_optimizer)
    if OPT in values and not {"opt", "params"} <= cfg.optimizer.keys():
        raise ConfigError(f"train.recipe={recipe}: needs d2timm's optimizer; leave one of them out")
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    cfg.train.recipe = None
    slow = bool(prior.get("starts_slowly"))
    return {"name": name, "source": prior["source"], "values": values, "starts_slowly": slow}


def _values(
    cfg: DictConfig, prior: Mapping[str, Any], family: Family, given: Collection[str], only_optimizer: bool
) -> dict[str, Any]:
    """The values of a prior for a config, without those that the user has set or that depend on such."""
    backbone = cfg.model.backbone.bottom_up
    pretrained = backbone.get("pretrained") or backbone.get("checkpoint_path")
    values = {**prior["values"], **(prior.get("pretrained", {}) if pretrained else {})}
    excluded: list[str] = []
    if _is_set(OPT, given):
        excluded += [OPTIMIZER, REFERENCE]  # rates and decays are those of the prior's optimizer
    if _is_set(LR, given):
        excluded.append(REFERENCE)  # the rate is meant as it is
    if only_optimizer:
        excluded += [key for key in values if not key.startswith(OPTIMIZER) and key != REFERENCE]
    values = {
        key: _by_size(value, family.parameters)
        for key, value in values.items()
        if not _is_set(key, [*given, *excluded])
    }
    if DROP_PATH in values and not _takes_drop_path(backbone.model_name, values[DROP_PATH]):
        del values[DROP_PATH]
    in_other_units = any(cfg.train.get(key) is not None for key in ("epochs", "budget_hours"))
    has_length = in_other_units or not OmegaConf.is_interpolation(cfg.train, "max_iter")
    own_data = isinstance(get_dataset(cfg.data), CustomDataset)
    if own_data and not (only_optimizer or has_length or _is_set(EPOCHS, given)):
        values[EPOCHS] = AUTO
    return values


def describe_recipe(recipe: Mapping[str, Any]) -> list[str]:
    """Lines that say what a recipe applied."""
    values = (f"{key}={value}" for key, value in recipe["values"].items())
    return [f"{recipe['name']}, from {recipe['source']}", *values]


def recipe_keys() -> set[str]:
    """All keys that the recipes of d2timm set."""
    return {EPOCHS, *(key for prior in _table().values() for part in _parts(prior) for key in part)}


def given_keys(command: Iterable[str]) -> list[str]:
    """The keys that the overrides of a command line set."""
    overrides = (word for word in command if "=" in word and not word.startswith("-"))
    return [text.lstrip("+").partition("=")[0] for text in overrides]


def _choose(recipe: str, family: Family) -> tuple[str, Mapping[str, Any]]:
    """The prior of that name, or the first one of a table that fits a family."""
    is_file = recipe.endswith(".py")
    table = _table(Path(recipe)) if is_file else _table()
    if recipe != AUTO and not is_file:
        if recipe not in table:
            known = [AUTO, *table]
            raise ConfigError(f"train.recipe={one_line(recipe)}: {suggest(recipe, known)}; or a file FILE.py")
        return recipe, table[recipe]
    for name, prior in table.items():
        if family.fits(prior["when"]):
            return name, prior
    raise ConfigError(f"train.recipe={recipe}: no prior fits {family}; add one with when=dict()")


def _table(file: Path | None = None) -> dict[str, Any]:
    """Name -> prior, of a user's file or of d2timm."""
    cfg = load(file) if file else get_config(TABLE)
    table = to_plain(cfg.get("priors"))
    for name, prior in (table or {"": {}}).items():
        if not isinstance(prior, dict) or not {"when", "values", "source"} <= prior.keys():
            raise ConfigError(f"train.recipe={file}: priors.{name} lacks when, values or source; see {TABLE}")
    return dict(table)


def _parts(prior: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [prior["values"], prior.get("pretrained", {})]


def _by_size(value: Any, parameters: float) -> Any:
    """A value itself, or that of the first pair (millions of parameters, value) that is large enough."""
    if not isinstance(value, list):
        return value
    return next(choice for most, choice in value if most is None or parameters <= most)


def _is_set(key: str, given: Collection[str]) -> bool:
    """Whether the user has set a key or a node that contains it."""
    return any(key == other or key.startswith(f"{other}.") for other in given)


def _takes_drop_path(model_name: str, rate: float) -> bool:
    """Whether timm's model has stochastic depth."""
    try:
        with torch.device("meta"):
            TimmBackbone(model_name, drop_path_rate=rate)
    except ConfigError:
        return False
    return True
