"""Tell what became of each weight."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .layout import Layout
from .matching import Match
from .target import Target, part_of

__all__ = ["mapping_report", "summary_of_faults"]


def mapping_report(found: Match, layout: Layout, target: Target, total: int, every: bool = False) -> str:
    """All weights of both sides, in a page.

    Args:
        found: what became of them.
        layout: of the file.
        target: the detector.
        total: number of weights in the file.
        every: name each weight; else numbers in names are ``*``.
    """
    names = [*target.state]
    lines = [f"{layout.name} -> {target.model_name}: mapped {len(found.mapped)} of {total} weights"]
    for part in target.parts:
        of_part = [name for name in names if part_of(name) == part]
        done = sum(name in found.weights for name in of_part)
        lines.append(f"  {part:20s}{done:5d} of {len(of_part)} weights of the model")
    lines += _section("left over, which need no place", found.left_over, every)
    lines += _section("WITHOUT A PLACE in the model", found.homeless, every)
    lines += _section("of the model, start anew", found.fresh, every)
    lines += _section("of the model, WITHOUT A SOURCE", dict.fromkeys(found.missing, ""), every)
    if found.notes:
        lines += ["notes", *(f"  {note}" for note in found.notes)]
    return "\n".join(lines)


def summary_of_faults(found: Match) -> str:
    """What is wrong, in a line."""
    told = []
    if found.homeless:
        name, reason = next(iter(found.homeless.items()))
        told.append(f"{_count(found.homeless)} in the file without a place, as {name} ({reason})")
    if found.missing:
        told.append(f"{_count(found.missing)} of the model without a source, as {found.missing[0]}")
    return "; ".join(told)


def _count(names: Iterable[str]) -> str:
    number = len([*names])
    return f"{number} weight" + ("s" if number > 1 else "")


def _section(title: str, reasons: Mapping[str, str], every: bool) -> list[str]:
    """Names by their reasons; those that differ in numbers only are told as one unless each is wanted."""
    groups: dict[str, dict[str, list[str]]] = {}
    for name, reason in reasons.items():
        pattern = name if every else re.sub(r"\d+", "*", name)
        alike = groups.setdefault(reason if every else re.sub(r"\d+", "*", reason), {})
        alike.setdefault(pattern, []).append(name)
    lines = [f"{title}: {len(reasons)}"] if reasons else []
    for alike in groups.values():
        names = [name for group in alike.values() for name in group]
        told = {reasons[name] for name in names}
        reason = told.pop() if len(told) == 1 else re.sub(r"\d+", "*", told.pop())
        indent = "  "
        if reason:
            lines.append(f"  {reason}: {len(names)}")
            indent = "    "
        for pattern, group in alike.items():
            lines.append(indent + (f"{pattern} ({len(group)})" if len(group) > 1 else group[0]))
    return lines
