"""Arrays of annotation files in the cache: a file is parsed once, and mapped into memory from then on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from ..errors import ConfigError
from ..utils.arrays import Arrays, map_arrays, write_arrays
from ..utils.files import cache_root
from ..utils.json_file import without_collector
from .checks.headers import file_state

__all__ = ["Content", "cached_arrays"]

Content: TypeAlias = tuple[Arrays, Mapping[str, str]]  # arrays and metadata


def cached_arrays(file: Path, kind: str, read: Callable[[], Content]) -> Path:
    """The file of the cache with the arrays of an annotation file, made if that has changed or is new.

    Several processes may make it at the same time; what each of them reads stays the same.

    Args:
        file: the annotation file.
        kind: of arrays, with the version of their format.
        read: reads the annotation file.

    Raises:
        ConfigError: the cache cannot be written.
    """
    key = f"{kind} {file.absolute()} {file_state(file)}"
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:16]
    cached = cache_root() / f"columns-{digest}.safetensors"
    try:
        map_arrays(cached)
        return cached
    except (OSError, ValueError):  # it is missing or damaged
        pass
    with without_collector():
        arrays, metadata = read()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(cached, arrays, metadata)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"{cached} cannot be written ({reason}): set D2TIMM_CACHE to a folder that can be written"
        ) from None
    return cached
