"""The dataset of a run: which splits it has, what they contain, and the samples that are left out.

Samples that are left out are counted in the record of the run, and listed in ``skipped.json`` in its folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig

from ..data.bad_samples import bad_samples
from ..data.catalog import check_split, checked_split, findings_of, note_of, splits_of, tasks_of
from ..data.checks.findings import NOTE, REPAIRED, SKIPPED, Findings
from ..errors import ConfigError
from ..runs.record import Record
from ..utils.files import atomic_write
from ..utils.json_file import read_json
from .detector_limits import add_beyond_limits, common_folder

__all__ = ["FILE", "NO_VALIDATION", "add_bad_samples", "describe_split", "has_validation", "list_left_out"]

logger = logging.getLogger(__name__)

FILE = "skipped.json"
NO_VALIDATION = "There is no validation set and no evaluation; data.val_share=0.2 holds out some images"


def has_validation(cfg: DictConfig) -> bool:
    """Whether the dataset of a config has a validation split; configs without ``data`` have their own."""
    return "data" not in cfg or "val" in splits_of(cfg.data)


def describe_split(cfg: DictConfig, split: str) -> list[str]:
    """Describe a split: its size, how it was found, and each kind of finding, one line each.

    Args:
        cfg: the tree, its dataset resolved.
        split: ``train`` or ``val``.

    Raises:
        ConfigError: it cannot be used.
    """
    data, tasks = cfg.data, tasks_of(cfg.data)
    summary, note = check_split(data, split, tasks), note_of(data, split)
    findings = findings_of(data, split)
    if (checked := checked_split(data, split)) is not None:
        add_beyond_limits(findings, cfg, checked.columns, common_folder(checked.about["files"]))
    lines = findings.lines(SKIPPED, REPAIRED, NOTE, tasks=tasks)
    return [f"{summary} ({note})" if note else summary, *(f"  {line}" for line in lines)]


def list_left_out(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Log what the splits contain, and record the samples that are left out, in place of earlier records."""
    record.skipped = {}
    (folder / FILE).unlink(missing_ok=True)
    if "data" not in cfg:
        return
    for split in splits_of(cfg.data):
        for line in describe_split(cfg, split):
            logger.info("%s", line)
        _add(record, folder, split, findings_of(cfg.data, split), tasks_of(cfg.data))
    if not has_validation(cfg):
        logger.warning("%s.", NO_VALIDATION)


def add_bad_samples(record: Record, folder: Path, split: str, loader: Any) -> None:
    """Record the images that could not be read during the run, in any of its processes.

    Args:
        record: the record of the run.
        folder: the folder of the run.
        split: ``train`` or ``val``.
        loader: the loader of the split in this process.
    """
    reasons = [reason for gathered in comm.gather(bad_samples(loader)) for reason in gathered]
    if reasons and comm.is_main_process():
        findings = Findings()
        findings.add("broken_image", *dict.fromkeys(reasons))
        _add(record, folder, split, findings, None)


def _add(record: Record, folder: Path, split: str, findings: Findings, tasks: Iterable[str] | None) -> None:
    """Add samples that are left out to the counts and to the list."""
    kinds = findings.of(SKIPPED, tasks=tasks)
    if not kinds:
        return
    record.skipped.setdefault(split, {}).update({kind: findings.counts[kind] for kind in kinds})
    file = folder / FILE
    listed = _read_list(file) if file.is_file() else {}
    entries = {kind: entry for kind, entry in findings.as_dict().items() if kind in kinds}
    listed[split] = {**listed.get(split, {}), **entries}
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(listed, indent=2, ensure_ascii=False) + "\n")


def _read_list(file: Path) -> dict[str, dict[str, Any]]:
    """The samples that earlier parts of a run have left out, by split; none if the file is damaged."""
    try:
        listed = read_json(file)
        if isinstance(listed, dict) and all(isinstance(entries, dict) for entries in listed.values()):
            return listed
        logger.warning("%s is damaged, and is written anew", file)
    except ConfigError as error:
        logger.warning("%s; it is written anew", error)
    return {}
