"""Names of timm models, checked before anything is built."""

from __future__ import annotations

import timm
from timm.models import is_model, parse_model_name, split_model_name_tag

from ..errors import ConfigError
from ..utils.checks import suggest

__all__ = ["check_name"]


def check_name(model_name: str) -> None:
    """Raise ConfigError unless ``timm.create_model`` knows the name.

    Names with a source (``hf-hub:…``, ``local-dir:…``) are resolved when the model is created.
    """
    try:
        spec, name = parse_model_name(model_name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if spec:
        return
    arch, tag = split_model_name_tag(name)
    if not is_model(arch):
        hint = suggest(arch, timm.list_models())
        raise ConfigError(f"model_name={model_name!r} is not in timm {timm.__version__}: {hint}")
    tags = [split_model_name_tag(known)[1] for known in timm.list_pretrained(f"{arch}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none"
        raise ConfigError(f"model_name={model_name!r}: {arch} has no weights {tag!r}; it has {known}")
