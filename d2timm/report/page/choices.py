"""What the page of a choice shows beside its runs."""

from __future__ import annotations

import shlex
from datetime import datetime

from ...runs.choice import Choice
from ...utils.text import printable
from .curves import Curve
from .figures import Series, draw_rungs, style
from .parts import Content, Dropped, Key, StageRow, duration
from .scatter import Point, draw_pareto
from .source import Source
from .tables import candidate_table, final_table

__all__ = ["choice_content", "sentence_of"]


def choice_content(source: Source, choice: Choice, name: str) -> Content:
    """The content of a choice's page, without what every page has.

    Args:
        source: the folder.
        choice: its record.
        name: of the folder.
    """
    verdict = choice.verdict
    content = Content("choice", name, sentence_of(choice))
    content.facts = [(label, printable(value)) for label, value in _choice_facts(choice).items() if value]
    commands = [
        ("Detect objects with the chosen detector", verdict.command if verdict else ""),
        ("Repeat the choice, or continue it", shlex.join(choice.command)),
    ]
    content.commands = [(label, printable(command)) for label, command in commands if command]
    content.leaderboard = candidate_table(source, choice) if choice.candidates else None
    content.finals = final_table(choice)
    total = sum(max(stage.seconds, 0) for stage in choice.stages) or 1
    content.stages = [
        StageRow(
            printable(stage.name),
            printable(stage.status),
            duration(stage.planned) if stage.planned else "",
            duration(stage.seconds),
            100 * max(stage.seconds, 0) / total,
            [printable(note) for note in stage.notes],
        )
        for stage in choice.stages
    ]
    content.dropped = _dropped(choice)
    content.correlations = [(printable(k), f"{value:.2f}") for k, value in choice.correlations.items()]
    metric = verdict.metric if verdict else next((e.metric for e in source.entries), "score")
    content.figures["pareto"] = draw_pareto(_candidate_points(choice), metric)
    series = _rung_series(source, choice)
    content.figures["rungs"] = draw_rungs(series, metric)
    content.candidates = [Key(one.name, one.color, one.dash) for one in series]
    return content


def sentence_of(choice: Choice) -> str:
    """The verdict, or which stage runs."""
    if choice.verdict and choice.verdict.sentence:
        return printable(choice.verdict.sentence)
    running = [stage.name for stage in choice.stages if stage.status == "running"]
    now = f" The stage that runs now: {printable(running[-1])}." if running and choice.ended is None else ""
    return f"Nothing is decided yet.{now}"


def _choice_facts(choice: Choice) -> dict[str, str]:
    verdict = choice.verdict
    facts = {
        "started": _moment(choice.started),
        "ended": _moment(choice.ended),
        "to end by": _moment(choice.deadline) if choice.ended is None else "",
        "images": ", ".join(f"{number:,} to {part}" for part, number in choice.images.items()),
        "candidates": str(len(choice.candidates) or ""),
        "seeds of a finalist": str(choice.seeds or ""),
    }
    if verdict and verdict.test_score is not None:
        spread = f" ± {verdict.test_spread:.1f}" if verdict.test_spread is not None else ""
        images = f" on {verdict.test_images:,} images" if verdict.test_images else ""
        facts["test"] = f"{verdict.metric} {verdict.test_score:.1f}{spread}{images}"
    if verdict and verdict.milliseconds:
        facts["time per image"] = f"{verdict.milliseconds:.1f} ms"
    if verdict and verdict.exported:
        facts["exported"] = verdict.exported
    return facts


def _moment(seconds: float | None) -> str:
    """A moment in local time; empty if it is unknown or no moment."""
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _dropped(choice: Choice) -> list[Dropped]:
    known = [stage.name for stage in choice.stages]
    given_up = [candidate for candidate in choice.candidates if candidate.dropped]
    stages = dict.fromkeys([*known, *(candidate.dropped for candidate in given_up)])
    groups = (
        (stage, [(printable(c.name), printable(c.reason)) for c in given_up if c.dropped == stage])
        for stage in stages
    )
    return [Dropped(printable(stage), members) for stage, members in groups if members]


def _candidate_points(choice: Choice) -> list[Point]:
    """Candidates by their final scores, or else by their last rungs, which are those of shorter trainings."""
    compared = {part.name: part for part in choice.verdict.compared} if choice.verdict else {}
    chosen = choice.verdict.name if choice.verdict else ""
    points = []
    for candidate in choice.candidates:
        part = compared.get(candidate.name)
        rungs = [rung.score for rung in candidate.rungs if rung.score is not None]
        score = part.score if part else rungs[-1] if rungs else None
        if score is None:
            continue
        kind = "finalist" if part else f"dropped: {candidate.dropped}" if candidate.dropped else "in the race"
        kind = "chosen" if part and candidate.name == chosen else kind
        points.append(
            Point(
                name=printable(candidate.name),
                score=score,
                low=part.low if part else None,
                high=part.high if part else None,
                milliseconds=candidate.milliseconds,
                parameters=candidate.parameters or None,
                kind=printable(kind),
                about=() if part else ("score of its last rung",),
                comparable=bool(part) or not compared,
            )
        )
    return points


def _rung_series(source: Source, choice: Choice) -> list[Series]:
    places = source.places
    series = []
    for candidate in choice.candidates:
        rungs = [rung for rung in candidate.rungs if rung.score is not None]
        if rungs:
            curve = Curve(
                [rung.iterations for rung in rungs],
                [rung.seconds for rung in rungs],
                [rung.score for rung in rungs if rung.score is not None],
            )
            line = style(places[candidate.name])
            series.append(Series(printable(candidate.name), curve, *line, dropped=bool(candidate.dropped)))
    return series
