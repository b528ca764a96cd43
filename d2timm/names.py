"""Names that users type: checked once, with the names that resemble a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .errors import ConfigError

__all__ = ["check_name", "near"]


def near(value: str, known: Iterable[str]) -> str:
    """The names in ``known`` that resemble ``value``, as the end of an error message."""
    matches = difflib.get_close_matches(value, list(known), n=4, cutoff=0.5)
    return f"did you mean {' or '.join(matches)}?" if matches else "no known name is like it"


def check_name(model_name: str) -> None:
    """Raise ConfigError unless ``timm.create_model`` knows the name.

    Names that say where they come from (``hf-hub:…``, ``local-dir:…``) are looked up when they are built.
    """
    import timm  # brings torch: seconds that other names need not wait for
    from timm.models import is_model, parse_model_name, split_model_name_tag

    try:
        source, name = parse_model_name(model_name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if source:
        return
    arch, tag = split_model_name_tag(name)
    if not is_model(arch):
        hint = near(arch, timm.list_models())
        raise ConfigError(f"model_name={model_name!r} is not in timm {timm.__version__}: {hint}")
    tags = [split_model_name_tag(known)[1] for known in timm.list_pretrained(f"{arch}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none"
        raise ConfigError(f"model_name={model_name!r}: {arch} has no weights {tag!r}; it has {known}")
