"""Texts and decimal numbers as small arrays, which give back exactly what was put in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, Arrays, smallest

__all__ = ["DecimalPacker", "Decimals", "Texts", "pack_texts"]

SCALE = 100  # annotation tools write coordinates with two decimals
BLOCK = 2**16  # numbers that are packed at a time
MANY = 0.25  # of the numbers, from which on all of them are stored as float64


def pack_texts(name: str, texts: Sequence[str | bytes]) -> dict[str, Array]:
    """Texts as arrays, which ``Texts`` reads."""
    encoded = [t if isinstance(t, bytes) else t.encode("utf-8", "surrogatepass") for t in texts]
    return {
        name: np.frombuffer(b"".join(encoded), np.uint8),
        f"{name}.ends": smallest(np.cumsum([0, *map(len, encoded)])),
    }


class Texts:
    """The texts of ``pack_texts``.

    Args:
        arrays: those of a file.
        name: of the texts.
    """

    def __init__(self, arrays: Arrays, name: str) -> None:
        self._bytes, self._ends = arrays[name], arrays[f"{name}.ends"]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> str:
        return self.encoded(index).decode("utf-8", "surrogatepass")

    def encoded(self, index: int) -> bytes:
        """A text in UTF-8."""
        return self._bytes[self._ends[index] : self._ends[index + 1]].tobytes()


class DecimalPacker:
    """Collects numbers, most of which have two decimals at most, as integers of hundredths.

    The division of such an integer by 100 gives the float that the decimal text stands for, because both are
    correctly rounded. All other numbers are kept beside the integers, with their places.

    Args:
        name: of the numbers in ``arrays``.

    Attributes:
        count: how many numbers there are.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self._added: list[Sequence[float]] = []
        self._packed = 0
        self._blocks: list[tuple[NDArray[np.int32], Array, NDArray[np.float64]]] = []

    def extend(self, numbers: Sequence[float]) -> None:
        """Add numbers, in a sequence that does not change afterwards."""
        self._added.append(numbers)
        self.count += len(numbers)
        if self.count - self._packed > BLOCK:
            self._pack()

    def arrays(self) -> dict[str, Array]:
        """All numbers as arrays, which ``Decimals`` reads."""
        self._pack()
        hundredths, places, others = (np.concatenate(parts) for parts in zip(*self._blocks, strict=True))
        if len(places) > MANY * self.count:
            exact = hundredths / SCALE
            exact[places] = others
            return {self.name: exact}
        further = {f"{self.name}.places": smallest(places), f"{self.name}.others": others}
        return {self.name: smallest(hundredths), **(further if len(places) else {})}

    def _pack(self) -> None:
        numbers = np.fromiter(chain.from_iterable(self._added), np.float64, self.count - self._packed)
        with np.errstate(all="ignore"):
            scaled = np.rint(numbers * SCALE)
            fits = (scaled / SCALE == numbers) & (np.abs(scaled) < 2**31)
        places = np.flatnonzero(~fits)
        scaled[places] = 0
        self._blocks.append((scaled.astype(np.int32), places + self._packed, numbers[places]))
        self._added, self._packed = [], self.count


class Decimals:
    """The numbers of a ``DecimalPacker``.

    Args:
        arrays: those of a file.
        name: of the numbers.
    """

    def __init__(self, arrays: Arrays, name: str) -> None:
        self._numbers = arrays[name]
        self._places = arrays.get(f"{name}.places")
        self._others = arrays.get(f"{name}.others")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, part: slice) -> NDArray[np.float64]:
        """A range of the numbers; ``part`` has no step."""
        if self._numbers.dtype == np.float64:
            return np.array(self._numbers[part])
        numbers: NDArray[np.float64] = self._numbers[part] / SCALE
        if self._places is not None and self._others is not None:
            start, stop, _ = part.indices(len(self))
            first, last = np.searchsorted(self._places, (start, stop))
            numbers[self._places[first:last] - start] = self._others[first:last]
        return numbers
