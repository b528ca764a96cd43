"""The verdict: which finalist is best, how sure that is, and in which words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..report.bootstrap import Matches, compare, draw_scores, interval
from ..runs.choice import Candidate, Choice, Comparison, Final
from .clock import in_words
from .logme import rank_correlation

__all__ = ["compare_finalists", "correlate", "describe_choice", "pick"]

SURE = 0.95


def compare_finalists(folder: Path, choice: Choice, metric: str) -> list[Comparison]:
    """The finalists, the best one first, by a bootstrap over images and seeds.

    Args:
        folder: of the choice.
        choice: with its finals. Without any, the last rung is compared.
        metric: by which runs are compared, such as ``bbox/AP``.
    """
    runs: dict[str, list[Path]] = {}
    scores: dict[str, list[float]] = {}
    for final in choice.finals:
        if final.counts and final.score is not None:
            runs.setdefault(final.name, []).append(folder / final.folder)
            scores.setdefault(final.name, []).append(final.score)
    if not runs:
        for candidate in choice.remaining:
            if candidate.rungs and candidate.rungs[-1].score is not None:
                runs[candidate.name] = [folder / "rungs" / candidate.folder]
                scores[candidate.name] = [candidate.rungs[-1].score]
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    names = sorted(means, key=lambda name: -means[name])
    drawn = _draw(runs, names, metric)
    return [_compare(name, names[0], means, names, drawn) for name in names]


def _draw(runs: dict[str, list[Path]], names: Sequence[str], metric: str) -> NDArray[np.float64] | None:
    """Scores of the finalists (draws, finalists); None if their detections are not known one by one."""
    task, _, key = metric.partition("/")
    if key != "AP":
        return None
    try:
        files = [[run / "inference" / f"matches-{task}.npz" for run in runs[name]] for name in names]
        drawn = draw_scores([[Matches.read(file) for file in of_name] for of_name in files])
    except ConfigError:
        return None
    defined = drawn[~np.isnan(drawn).any(axis=1)]  # a draw may have no image with an object
    return defined if len(defined) else None


def _compare(
    name: str, best: str, means: dict[str, float], names: Sequence[str], drawn: NDArray[np.float64] | None
) -> Comparison:
    behind = means[best] - means[name]
    if drawn is None:
        return Comparison(name, means[name], means[name], means[name], behind, float(name == best), False)
    column, first = names.index(name), names.index(best)
    low, high = interval(drawn[:, column])
    highest = drawn.max(axis=1, keepdims=True)
    among = drawn == highest
    probability = float((among[:, column] / among.sum(axis=1)).mean())
    tied = name != best and compare(drawn[:, first], drawn[:, column], behind).is_tie
    return Comparison(name, means[name], low, high, behind, probability, tied)


def pick(compared: Sequence[Comparison], candidates: Sequence[Candidate]) -> Comparison:
    """The chosen finalist: the fastest one of those that tie with the best."""
    milliseconds = {candidate.name: candidate.milliseconds or math.inf for candidate in candidates}
    tied = [compared[0], *(one for one in compared if one.tied)]
    return min(tied, key=lambda one: (milliseconds[one.name], one.behind))


def describe_choice(choice: Choice, score: str, milliseconds: float | None) -> str:
    """The verdict in words.

    Args:
        choice: with its verdict, but for the sentence.
        score: of the chosen detector on the test images, such as ``box AP 61.2 ± 0.8 on 120 photographs``.
        milliseconds: per image, of the chosen detector.
    """
    verdict = choice.verdict
    assert verdict is not None, "the caller makes it"
    compared, speeds = verdict.compared, {c.name: c.milliseconds for c in choice.candidates}
    chosen = next(one for one in compared if one.name == verdict.name)
    speed = f", {milliseconds:.0f} ms an image" if milliseconds else ""
    tied = [one for one in compared if one.tied or one is compared[0]]
    lower = [one for one in compared if one not in tied and one is not chosen]
    detail = f" ({score}{speed})"
    if len(compared) == 1:
        text = f"{chosen.name} is the only candidate that could be judged{detail}."
    elif len(tied) > 1:
        others = " and ".join(one.name for one in tied if one is not chosen)
        text = f"It is a tie: {chosen.name}{detail} is the fastest of those that the time cannot tell apart "
        text += f"from {compared[0].name}: {others}." if chosen is not compared[0] else f"from it: {others}."
    else:
        text = f"{chosen.name} is best with {_percent(chosen.probability)}{detail}."
    parts = [
        f"{one.name} is {chosen.score - one.score:.1f} AP lower{_speed(one, chosen, speeds)}"
        for one in lower[:2]
    ]
    if parts:
        text += f" {'; '.join(parts)}."
    return f"{text} {_surer(choice)}".strip()


def _percent(probability: float) -> str:
    """A probability in percent; a bootstrap is never quite certain."""
    return "more than 99%" if probability > 0.99 else f"{probability:.0%}"


def _speed(one: Comparison, chosen: Comparison, speeds: dict[str, float | None]) -> str:
    own, other = speeds.get(chosen.name), speeds.get(one.name)
    if not own or not other:
        return ""
    factor = own / other
    if 0.8 < factor < 1.25:
        return " and as fast"
    return f" and {factor:.1f} times as fast" if factor > 1 else f" and {1 / factor:.1f} times as slow"


def _surer(choice: Choice) -> str:
    """What it would take to be surer."""
    verdict = choice.verdict
    assert verdict is not None, "the caller makes it"
    best, *others = verdict.compared
    if not others or best.probability >= SURE:
        return ""
    finals = [stage.seconds for stage in choice.stages if stage.name == "finals"]
    spent = sum(finals)
    if choice.seeds < 3 and spent:
        return f"To be surer than {best.probability:.0%}: about {in_words(spent)} more, for more seeds."
    if spent and any(one.behind >= 1 for one in others if one.tied):
        return f"To be surer than {best.probability:.0%}: about {in_words(2 * spent)} more."
    return "More time would hardly decide it; more images to choose by would."


def correlate(choice: Choice) -> dict[str, float]:
    """Rank correlations of what was known early with the last scores of the same candidates."""
    found = {}
    early = {
        "features": {c.name: c.transfer for c in choice.candidates},
        **{
            f"rung {number + 1}": {
                c.name: c.rungs[number].score for c in choice.candidates if len(c.rungs) > number
            }
            for number in range(len(choice.plan))
        },
    }
    last = _last_scores(choice.candidates, choice.finals)
    for stage, values in early.items():
        names = [n for n, value in values.items() if value is not None and _later(stage, n, choice, last)]
        if len(names) > 2:
            one = np.array([values[name] for name in names], np.float64)
            value = rank_correlation(one, np.array([last[name] for name in names]))
            if math.isfinite(value):
                found[stage] = value
    return found


def _last_scores(candidates: Sequence[Candidate], finals: Sequence[Final]) -> dict[str, float]:
    last = {c.name: c.rungs[-1].score for c in candidates if c.rungs and c.rungs[-1].score is not None}
    for name in {final.name for final in finals}:
        scores = [f.score for f in finals if f.name == name and f.counts and f.score is not None]
        if scores:
            last[name] = float(np.mean(scores))
    return {name: score for name, score in last.items() if score is not None}


def _later(stage: str, name: str, choice: Choice, last: dict[str, float]) -> bool:
    """Whether a candidate has a score that came after a stage."""
    if name not in last:
        return False
    if not stage.startswith("rung"):
        return True
    candidate = next(c for c in choice.candidates if c.name == name)
    has_final = any(f.name == name and f.score is not None for f in choice.finals)
    return has_final or len(candidate.rungs) > int(stage.split()[1])
