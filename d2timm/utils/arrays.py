"""Arrays in a file that all processes of a machine share: they map it into memory instead of reading it.

The format is that of safetensors, https://github.com/huggingface/safetensors: a JSON header and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .files import atomic_write, disk_errors

__all__ = ["Array", "Arrays", "map_arrays", "smallest", "write_arrays"]

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

DTYPES: Mapping[str, Any] = {
    **{"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_},
    **{"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64},
}


def write_arrays(file: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    """Write arrays atomically.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    with atomic_write(file) as partial, disk_errors(partial, SafetensorError):
        contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        # not save_file, which gives the file to its owner alone
        partial.write_bytes(save(contiguous, dict(metadata)))


def map_arrays(file: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Map the arrays of a file into memory, read-only, and read its metadata.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: the file is damaged.
    """
    try:
        with safe_open(file, framework="np") as opened:  # which checks the header against the file's length
            metadata: dict[str, str] = opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file}: {error}") from None
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    arrays = {
        name: content[slice(*(start + offset for offset in entry["data_offsets"]))]
        .view(DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
    }
    return arrays, metadata


def smallest(values: Any) -> Array:
    """Integers in the smallest type that has room for all of them."""
    array = np.asarray(values)
    if not array.size:
        return array.astype(np.uint8)
    least, most = int(array.min()), int(array.max())
    if least < 0:
        most = -1 - most  # whose type has a sign
    return array.astype(np.promote_types(np.min_scalar_type(least), np.min_scalar_type(most)))
