"""The backbones among which a choice is made, and which of them may not be taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import timm

from ..backbone.names import check_name
from ..backbone.probing import pretrained_cfg
from ..backbone.zoo_table import match_rows
from ..errors import ConfigError
from ..runs.choice import Candidate
from ..utils.checks import suggest
from ..utils.files import resource_folder

__all__ = ["Wanted", "check_licence", "find_candidates", "licence_of", "unfit"]

FOLDER = resource_folder("conf") / "choose"
DEFAULT = FOLDER / "candidates.txt"
COMMERCIAL = "commercial"
RANDOM = "random"  # in place of a file of weights


@dataclass(frozen=True)
class Wanted:
    """A backbone that a user names.

    Attributes:
        name: timm's name.
        weights: a file of weights of the backbone; ``random``; or "": those that the config has.
    """

    name: str
    weights: str = ""

    @property
    def overrides(self) -> list[str]:
        """Overrides of a config that choose the backbone."""
        node = "model.backbone.bottom_up"
        chosen = [f"{node}.model_name={self.name}"]
        if self.weights == RANDOM:
            chosen.append(f"{node}.pretrained=False")
        elif self.weights:
            chosen += [f"{node}.pretrained=False", f"{node}.checkpoint_path={self.weights}"]
        return chosen


def find_candidates(text: str | None) -> list[Wanted]:
    """The candidates that a user names.

    Args:
        text: names, shell patterns and ``@file``, separated by commas; a name may have ``=FILE`` or
            ``=random`` behind it. None: those that come with d2timm.

    Raises:
        ConfigError: a name is unknown or given twice, a pattern matches nothing, or a file does not exist.
    """
    words = _lines(DEFAULT) if text is None else [word.strip() for word in text.split(",")]
    found = [wanted for word in words if word for wanted in _expand(word)]
    names = [wanted.name for wanted in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--candidates: {name} is named {names.count(name)} times")
    if len(found) < 2:
        raise ConfigError(
            f"--candidates {text}: a choice needs at least two backbones, these are {len(found)}"
        )
    return found


def _expand(word: str) -> Iterator[Wanted]:
    if word.startswith("@"):
        for line in _lines(Path(word[1:])):
            yield from _expand(line)
        return
    name, _, weights = word.partition("=")
    if any(sign in name for sign in "*?["):
        rows = match_rows(name)
        if not rows:
            raise ConfigError(f"--candidates {name}: no model matches; {suggest(name, timm.list_models())}")
        yield from (Wanted(row["model_name"], weights) for row in rows)
        return
    check_name(name)
    if weights not in ("", RANDOM) and not Path(weights).is_file():
        raise ConfigError(f"--candidates {word}: {weights}: no such file; or {RANDOM} for random weights")
    yield Wanted(name, str(Path(weights).resolve()) if weights not in ("", RANDOM) else weights)


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file without comments."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise ConfigError(f"--candidates @{file}: {reason}") from None
    return (line for line in (line.partition("#")[0].strip() for line in lines) if line)


def licence_of(name: str) -> str:
    """The licence of the pretrained weights of a model; "" if timm does not know it."""
    return str(pretrained_cfg(name).get("license") or "")


def unfit(
    candidate: Candidate, licence: str | None, most_parameters: float | None, most_ms: float | None
) -> str:
    """Why a candidate may not be taken; "" if it may.

    Args:
        candidate: what is known of it so far.
        licence: ``commercial``, or the name of a licence; None: any.
        most_parameters: of the detector.
        most_ms: milliseconds per image.
    """
    allowed = _allowed(licence)
    if allowed is not None and candidate.licence not in allowed and candidate.pretrained:
        return f"the licence of its weights is {candidate.licence or 'not known to timm'}"
    if most_parameters is not None and candidate.parameters > most_parameters:
        return f"{candidate.parameters / 1e6:.1f} million parameters"
    if most_ms is not None and (candidate.milliseconds or 0) > most_ms:
        return f"{candidate.milliseconds:.0f} ms per image"
    return ""


def _allowed(licence: str | None) -> Iterable[str] | None:
    if licence is None:
        return None
    return [*_lines(FOLDER / "licences.txt")] if licence == COMMERCIAL else [licence]


def check_licence(licence: str | None) -> None:
    """Raise ConfigError for a licence that no weights of timm have."""
    cfgs = map(timm.get_pretrained_cfg, timm.list_pretrained())
    known = sorted({str(cfg.license) for cfg in cfgs if cfg is not None and cfg.license})
    if licence is not None and licence not in (COMMERCIAL, *known):
        raise ConfigError(f"--licence {licence}: {suggest(licence, [COMMERCIAL, *known])}")
