"""Report what became of each weight."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .layout import Layout
from .matching import Match
from .target import Target, part_of

__all__ = ["mapping_report", "summarize_problems"]


def mapping_report(result: Match, layout: Layout, target: Target, total: int, every: bool = False) -> str:
    """The weights of both sides, on a page.

    Args:
        result: what became of the weights.
        layout: layout of the file.
        target: the detector.
        total: number of weights in the file.
        every: whether to list each weight; otherwise names that differ only in numbers are one pattern.
    """
    lines = [f"{layout.name} -> {target.model_name}: mapped {len(result.mapped)} of {total} weights"]
    for part in target.parts:
        names = [name for name in target.state if part_of(name) == part]
        loaded = sum(name in result.weights for name in names)
        lines.append(f"  {part:20s}{loaded:5d} of {len(names)} weights of the model")
    lines += _section("not needed", result.not_needed, every)
    lines += _section("NO COUNTERPART in the model", result.unplaced, every)
    lines += _section("initialized in the model", result.initialized, every)
    lines += _section("MISSING in the file", dict.fromkeys(result.missing, ""), every)
    if result.notes:
        lines += ["notes", *(f"  {note}" for note in result.notes)]
    return "\n".join(lines)


def summarize_problems(result: Match) -> str:
    """The problems of an incomplete match, on one line."""
    problems = []
    if result.unplaced:
        name, reason = next(iter(result.unplaced.items()))
        problems.append(f"{_count(result.unplaced)} of the file fit nowhere, such as {name} ({reason})")
    if result.missing:
        problems.append(f"{_count(result.missing)} of the model are missing, such as {result.missing[0]}")
    return "; ".join(problems)


def _count(names: Collection[str]) -> str:
    return f"{len(names)} weight" + ("s" if len(names) > 1 else "")


def _section(title: str, reasons: Mapping[str, str], every: bool) -> list[str]:
    """Names grouped by their reasons; unless ``every``, numbers in both are replaced by ``*``."""
    groups: dict[str, dict[str, list[str]]] = {}  # reason -> pattern of names -> names
    for name, reason in reasons.items():
        pattern = name if every else re.sub(r"\d+", "*", name)
        patterns = groups.setdefault(reason if every else re.sub(r"\d+", "*", reason), {})
        patterns.setdefault(pattern, []).append(name)
    lines = [f"{title}: {len(reasons)}"] if reasons else []
    for general_reason, patterns in groups.items():
        names = [name for group in patterns.values() for name in group]
        exact_reasons = {reasons[name] for name in names}
        reason = exact_reasons.pop() if len(exact_reasons) == 1 else general_reason
        if reason:
            lines.append(f"  {reason}: {len(names)}")
        indent = "    " if reason else "  "
        for pattern, group in patterns.items():
            lines.append(indent + (f"{pattern} ({len(group)})" if len(group) > 1 else group[0]))
    return lines
