"""Read the pickles of detectron2's model zoo: arrays and plain containers, nothing else.

What a pickle names is never imported. The few names that numpy's arrays are pickled with stand for functions
of this module, which check what they are given before numpy sees it.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Forbidden", "read_pickle"]

KINDS = "biuf"  # of numbers: bool, int, unsigned, float
MOST_NESTED = 20  # containers
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


class Forbidden(pickle.UnpicklingError):
    """A pickle asks for something that is neither an array of numbers nor a plain container."""


def read_pickle(file: Path) -> Any:
    """The content of a pickle of dicts, lists, tuples, texts, numbers and numpy arrays of numbers.

    Raises:
        Forbidden: it asks for anything else; nothing of that was run.
        Exception: whatever a broken pickle makes Python's unpickler raise.
    """
    with file.open("rb") as opened:
        content = _Reader(opened, encoding="latin1").load()
    return _finished(content, {})


class _Dtype:
    """The type of an array's numbers, as a pickle builds it."""

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
    """An array, as a pickle builds it."""

    __slots__ = ("value",)
    value: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Forbidden("an array without its five parts")
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    """An array of the bytes of its numbers, no more and no fewer."""
    if isinstance(content, str):  # bytes of Python 2
        content = content.encode("latin1")
    sides = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not sides or not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise Forbidden("an array whose shape, type or numbers are something else")
    if math.prod(shape) * dtype.dtype.itemsize != len(content) or order not in ("C", "F"):
        raise Forbidden(f"an array of {len(content)} bytes that is said to be {shape}")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


class _Reader(pickle._Unpickler):  # in Python: that in C sets aside as much memory as a file makes it
    def find_class(self, module: str, name: str) -> Any:
        """A function in place of what is named; made anew each time, for a pickle may change it."""
        if (module, name) in (("collections", "OrderedDict"), ("builtins", "dict")):
            return dict
        if (module, name) in (("builtins", "bytes"), ("__builtin__", "bytes")):
            return lambda: b""  # what empty ones of old protocols are made by
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
        raise Forbidden(f"it asks for {module}.{name}"[:120])


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Forbidden("a text in another encoding than latin1")
    return text.encode("latin1")


def _finished(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """A value with arrays in place of what they were built from; what is there twice is looked at once."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, (dict, list, tuple)):
        if value is not None and not isinstance(value, (str, bytes, bytearray, int, float, np.ndarray)):
            raise Forbidden(f"a {type(value).__name__}")
        return value
    if depth > MOST_NESTED:
        raise Forbidden("containers within containers")
    if id(value) not in done:
        done[id(value)] = None  # for one that holds itself
        if isinstance(value, dict):
            done[id(value)] = {key: _finished(inner, done, depth + 1) for key, inner in value.items()}
        else:
            done[id(value)] = [_finished(inner, done, depth + 1) for inner in value]
    return done[id(value)]
