"""Check names of timm models before anything is built."""

from __future__ import annotations

import timm
from timm.models import is_model, parse_model_name, split_model_name_tag

from ..errors import ConfigError
from ..utils.checks import suggest

__all__ = ["check_name"]


def check_name(model_name: str) -> None:
    """Check that ``timm.create_model`` knows a name.

    Args:
        model_name: ``arch``, ``arch.tag``, ``hf-hub:…`` or ``local-dir:…``. Names with a source are
            resolved only when the model is created.

    Raises:
        ConfigError: the architecture, the tag or the source is unknown.
    """
    try:
        source, name = parse_model_name(model_name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if source:
        return
    arch, tag = split_model_name_tag(name)
    if not is_model(arch):
        hint = suggest(arch, timm.list_models())
        raise ConfigError(f"model_name={model_name!r} is not in timm {timm.__version__}: {hint}")
    tags = [split_model_name_tag(pretrained)[1] for pretrained in timm.list_pretrained(f"{arch}.*")]
    if tag and tag not in tags:
        available = ", ".join(tags) or "none"
        raise ConfigError(f"model_name={model_name!r}: {arch} has no weights {tag!r}; it has {available}")
