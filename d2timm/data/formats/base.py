"""The declaration of a dataset format, and the split that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..checks.findings import Findings
from ..checks.headers import Header

__all__ = ["FolderFormat", "Reading", "Source"]


class Reading(Protocol):
    """What a reader of annotations is given."""

    findings: Findings

    def headers(self, files: Sequence[Path]) -> dict[Path, Header]:
        """Read the headers of image files, in parallel and cached; unreadable files have an error."""


@dataclass(frozen=True)
class Source:
    """The annotations of a split, which have not been read yet.

    Attributes:
        label: the setting that selects them and its value, for error messages.
        files: the files that the annotations depend on, without the images.
        read: returns the content as a COCO file has it. Ids need not be integers, an image may lack its size,
            and its file name may be absolute. What cannot be read is added to the findings.
        images: the folder of relative file names.
        settings: everything else that the content depends on, such as options of the format.
        note: how the split was found, if a user might expect another one; "" otherwise.
    """

    label: str
    files: tuple[Path, ...]
    read: Callable[[Reading], dict[str, Any]]
    images: Path = Path("/")
    settings: tuple[object, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class FolderFormat:
    """A format of a user's own folder, selected by ``data.name`` and read from ``data.root``.

    Attributes:
        name: ``data.name``.
        tasks: the tasks that its annotations may describe, in the names of ``d2timm.data.tasks``.
        recognize: whether a folder or file is of this format; called by ``data.name=auto``. It looks at few
            files and never raises.
        open: finds a split; called with the folder, ``train`` or ``val``, and the setting with its value for
            error messages. None: the folder has no such split, which is an error for ``train`` only. Raises
            ConfigError if the folder is not of this format.
    """

    name: str
    tasks: tuple[str, ...]
    recognize: Callable[[Path], bool]
    open: Callable[[Path, str, str], Source | None]
