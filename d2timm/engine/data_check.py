"""Check a dataset before training: everything that a run would find, and a look across its splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tabulate import tabulate

from ..data.catalog import get_dataset, tasks_of
from ..data.checks.across import near_duplicates, unlabelled_files
from ..data.checks.findings import KINDS, NOTE, REPAIRED, SKIPPED, STOP
from ..data.own import checkable
from ..data.paths import SPLITS
from ..errors import ConfigError
from .detector_limits import add_beyond_limits, common_folder

__all__ = ["DataCheck"]

HEADINGS = {
    STOP: "Training would stop",
    SKIPPED: "Left out (data.on_error=skip) or an error (stop)",
    REPAIRED: "Read with a correction",
    NOTE: "Worth a look",
}
SHOWN = 3  # samples of a kind on the screen


class DataCheck:
    """The check of a dataset for a detector.

    Args:
        cfg: the tree, its dataset resolved.
        duplicates: whether images of the splits are compared, which decodes all of them.

    Attributes:
        stops: why training would stop; empty if it would not.

    Raises:
        ConfigError: the dataset cannot be read at all.
    """

    def __init__(self, cfg: DictConfig, duplicates: bool = True) -> None:
        self.data, self.tasks = cfg.data, tasks_of(cfg.data)
        self.dataset = checkable(get_dataset(cfg.data))
        self.findings = {split: self.dataset.findings(split) for split in self.dataset.splits()}
        files = [file for split in self.findings for file in self.dataset.split(split).about["files"]]
        self._root = common_folder(files)
        self.stops = self._stops()
        for split, findings in self.findings.items():
            add_beyond_limits(findings, cfg, self.dataset.split(split).columns, self._root)
        self._look_across(duplicates)

    @property
    def content(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "dataset": self.dataset.name,
            "stops": self.stops,
            "splits": {
                split: {**self._counts(split), "findings": findings.as_dict()}
                for split, findings in self.findings.items()
            },
        }

    def __str__(self) -> str:
        counts = {split: self._counts(split) for split in self.findings}
        parts = [self._sources(), _sizes(counts), _classes(counts)]
        for severity, heading in HEADINGS.items():
            if rows := self._rows(severity):
                headers = [heading, *self.findings, "", "such as"]
                parts.append(
                    tabulate(rows, headers, disable_numparse=True, maxcolwidths=[44, None, None, 30, 60])
                )
        parts.append("\n".join(f"error: {stop}" for stop in self.stops) or "Nothing would stop training.")
        return "\n\n".join(parts)

    def _stops(self) -> list[str]:
        stops = []
        for split in self.findings:
            try:
                self.dataset.check(split, self.tasks)
            except ConfigError as error:
                stops.append(str(error))
        return stops

    def _look_across(self, duplicates: bool) -> None:
        """Report files that no split lists, and images that both splits have."""
        splits = {split: self.dataset.split(split) for split in self.findings}
        folders = {opened.about["folder"] for opened in splits.values()}
        used = [file for opened in splits.values() for file in opened.about["files"]]
        unlabelled = map(self._short, unlabelled_files(folders, used))
        next(iter(self.findings.values())).add("unlabelled_file", *unlabelled)
        if duplicates and len(splits) == len(SPLITS):
            train, val = (list(splits[split].columns.names) for split in SPLITS)
            pairs = ((self._short(file), self._short(other)) for file, other in near_duplicates(train, val))
            self.findings["val"].add("near_duplicate", *(f"{file} and {other}" for file, other in pairs))

    def _short(self, file: str) -> str:
        """The path of an image below the folder that all images of the dataset share."""
        return os.path.relpath(file, self._root)

    def _counts(self, split: str) -> dict[str, Any]:
        columns = self.dataset.split(split).columns
        objects, names = ~columns.crowds, [category["name"] for category in columns.categories]
        per_class = np.bincount(columns.classes[objects], minlength=len(names)).tolist()
        per_image = np.bincount(columns.images_of_objects[objects], minlength=len(columns))
        return {
            "images": len(columns),
            "images with objects": int((per_image > 0).sum()),
            "objects": int(objects.sum()),
            "objects with masks": int(columns.has_mask[objects].sum()),
            "objects with keypoints": int((columns.visible[objects] > 0).sum()),
            "most objects in an image": int(per_image.max(initial=0)),
            "classes": dict(zip(names, per_class, strict=True)),
        }

    def _sources(self) -> str:
        lines = []
        for split in self.findings:
            opened = self.dataset.split(split)
            lines.append(f"{split}: {opened.label}" + (f" ({opened.note})" if opened.note else ""))
        return "\n".join(lines)

    def _rows(self, severity: str) -> list[list[str]]:
        rows = []
        tasks = self.tasks if severity == STOP else None  # other tasks do not stop this detector
        for name, kind in KINDS.items():
            found = [
                findings for findings in self.findings.values() if name in findings.of(severity, tasks=tasks)
            ]
            if found:
                samples = [sample for findings in found for sample in findings.samples[name][:SHOWN]][:SHOWN]
                counts = [str(findings.counts.get(name, 0)) for findings in self.findings.values()]
                rows.append([kind.text, *counts, kind.consequence, "\n".join(samples)])
        return rows


def _sizes(counts: Mapping[str, Mapping[str, Any]]) -> str:
    keys = [key for key in next(iter(counts.values())) if key != "classes"]
    rows = [[key, *(count[key] for count in counts.values())] for key in keys]
    return str(tabulate(rows, ["", *counts]))


def _classes(counts: Mapping[str, Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for count in counts.values() for name in count["classes"])
    rows = [[name, *(count["classes"].get(name, 0) for count in counts.values())] for name in names]
    return str(tabulate(rows, ["objects of class", *counts], disable_numparse=[0]))
