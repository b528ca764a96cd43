"""Read the pickles of detectron2's model zoo: arrays and plain containers, and nothing else.

Names in a pickle are never imported. The few names by which numpy pickles its arrays are replaced by
functions of this module, which check their arguments before numpy sees them.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Forbidden", "read_pickle"]

KINDS = "biuf"  # kinds of numbers: bool, int, unsigned, float
MAX_DEPTH = 20  # of nested containers
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


class Forbidden(pickle.UnpicklingError):
    """A pickle contains something other than arrays of numbers and plain containers."""


def read_pickle(file: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, strings, numbers and numpy arrays of numbers.

    Raises:
        Forbidden: the pickle contains anything else; none of it is executed.
        Exception: the pickle is broken; Python's unpickler raises errors of any type then.
    """
    with file.open("rb") as opened:
        content = _Reader(opened, encoding="latin1").load()
    return _finish(content, {})


class _Dtype:
    """Stands for a numpy dtype while a pickle builds it."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or code[:1] not in KINDS or not code[1:].isdigit():
            raise Forbidden(f"an array of {code!r:.40}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise Forbidden(f"numbers of the byte order {order!r:.40}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a numpy array while a pickle builds it."""

    __slots__ = ("value",)
    value: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Forbidden("an array whose state does not have five parts")
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    """Build an array from exactly the bytes of its numbers."""
    if isinstance(content, str):  # bytes of Python 2
        content = content.encode("latin1")
    sides = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not sides or not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise Forbidden("an array with an invalid shape, type or content")
    if math.prod(shape) * dtype.dtype.itemsize != len(content) or order not in ("C", "F"):
        raise Forbidden(f"an array of shape {shape} with {len(content)} bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


class _Reader(
    pickle._Unpickler
):  # in Python, because the one in C allocates as much memory as a file asks for
    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name; a new object each time, because a pickle may modify it."""
        if (module, name) in (("collections", "OrderedDict"), ("builtins", "dict")):
            return dict
        if (module, name) in (("builtins", "bytes"), ("__builtin__", "bytes")):
            return lambda: b""  # old protocols create empty bytes this way
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument of _reconstruct
        if (module, name) == ("numpy", "dtype"):
            return lambda code, *_: _Dtype(code)
        if module in MULTIARRAY and name == "_reconstruct":
            return lambda *_: _Array()
        if module in MULTIARRAY and name == "scalar":
            return lambda dtype, content: _array(content, dtype, (), "C")
        if module in NUMERIC and name == "_frombuffer":
            return lambda content, dtype, shape, order: _array(content, dtype, shape, order)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise Forbidden(f"it contains {module}.{name}"[:120])


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Forbidden("a string in an encoding other than latin1")
    return text.encode("latin1")


def _finish(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Replace the stand-ins of arrays by arrays; a container that occurs twice is visited once."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, (dict, list, tuple)):
        if value is not None and not isinstance(value, (str, bytes, bytearray, int, float, np.ndarray)):
            raise Forbidden(f"a {type(value).__name__}")
        return value
    if depth > MAX_DEPTH:
        raise Forbidden("containers that are nested too deeply")
    if id(value) not in done:
        done[id(value)] = None  # for a container that contains itself
        if isinstance(value, dict):
            done[id(value)] = {key: _finish(inner, done, depth + 1) for key, inner in value.items()}
        else:
            done[id(value)] = [_finish(inner, done, depth + 1) for inner in value]
    return done[id(value)]
