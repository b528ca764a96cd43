"""The sub-folders of a dataset's splits, by the names that annotation tools give them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SPLIT_NAMES", "find_split_folder"]

#: Names of a split's folder or file in lower case, the most usual first; ``test`` serves if there is no other
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}


def find_split_folder(root: Path, split: str) -> Path | None:
    """The sub-folder of a split, whatever the case of its name; None if there is none.

    Args:
        root: the folder of the dataset.
        split: ``train`` or ``val``; for ``val``, a folder ``test`` is taken only if there is no other.
    """
    try:
        folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    except OSError:
        return None
    return next((folders[name] for name in SPLIT_NAMES[split] if name in folders), None)
