"""What has become of every key of an old config: nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from .read import Old

__all__ = ["Account"]


class Account:
    """The fate of each key.

    Attributes:
        old: the config.
        converted: keys that stand in the new file, or mean what our recipe does anyway.
        needless: key -> why it is not needed.
        lost: key -> why it is not converted, and what stands in.
        notes: key -> what a user should know of its conversion.
    """

    def __init__(self, old: Old) -> None:
        self.old = old
        self.converted: set[str] = set()
        self.needless: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.notes: dict[str, str] = dict.fromkeys(old.repeated, "it is there twice; the last one counts")

    def settled(self, key: str) -> bool:
        """Whether it is known what has become of a key."""
        return key in self.converted or key in self.needless or key in self.lost

    def convert(self, *keys: str) -> None:
        """These are converted, and no longer not needed."""
        self.converted.update(keys)
        for key in keys:
            self.needless.pop(key, None)

    def note(self, key: str, text: str) -> None:
        """Say something of the conversion of a key."""
        self.notes[key] = f"{self.notes[key]}; {text}" if key in self.notes else text

    def settle(self, needless: Mapping[str, str], lost: Mapping[str, str], parts: Iterable[str]) -> None:
        """Find the fate of the keys that are left.

        Args:
            needless: pattern of keys -> why they are not needed.
            lost: pattern of keys -> why they are not converted.
            parts: keys that would be converted if the detector had that part.
        """
        absent = dict.fromkeys(parts, "of a part that the new config does not have")
        for key in self.old.changed:
            if not self.settled(key):
                reason = _find(key, {**needless, **absent})
                if reason:
                    self.needless[key] = reason
                else:
                    self.lost[key] = _find(key, lost) or "there is nothing like it here"

    def told(self) -> dict[str, dict[str, str]]:
        """What to tell: heading -> ``KEY=value`` -> why; what is converted without a remark is not told."""
        changed = set(self.old.changed) | self.old.given
        return {
            "not converted": self._lines(self.lost),
            "notes": self._lines(self.notes),
            "not needed": self._lines({k: why for k, why in self.needless.items() if k in changed}),
        }

    def _lines(self, reasons: Mapping[str, str]) -> dict[str, str]:
        return {self._named(key): why for key, why in reasons.items()}

    def _named(self, key: str) -> str:
        if key not in self.old.values:
            return key
        text = _short(self.old[key])
        return f"{key}={text}"


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _find(key: str, reasons: Mapping[str, str]) -> str | None:
    return next((why for pattern, why in reasons.items() if fnmatchcase(key, pattern)), None)
