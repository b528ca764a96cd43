"""Rank candidates by their frozen features before any training, to give the hopeless half up."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from statistics import fmean

from ..config.lazy import to_plain
from ..runs.choice import Candidate, Stage
from .clock import in_words
from .context import Context
from .parts import CHOOSE, TRAIN
from .rungs import COOL_DOWN, FINALISTS, plan_rungs, rung_sizes, share_of_rungs

__all__ = ["NAME", "rank"]

NAME = "features"
FEWEST = 6  # candidates; of fewer, none is given up
IMAGES = 100
PAYS = 0.5  # the ranking takes at most this share of the time that it saves
MORE = 60.0  # seconds by which it may exceed the expected time


def rank(context: Context) -> None:
    """Score the features of the remaining candidates and give the worse half up, if that saves time."""
    if context.is_done(NAME):
        return
    with context.stage(NAME) as stage:
        remaining = context.choice.remaining
        stage.planned = sum(map(_expected, remaining))
        saved = _saved(context, remaining)
        if len(remaining) < FEWEST or stage.planned > PAYS * saved:
            stage.status = "skipped"
            reason = f"{in_words(stage.planned)} would save {in_words(saved)} of training"
            if len(remaining) < FEWEST:
                reason = f"{len(remaining)} candidates are fewer than {FEWEST}"
            context.note(stage, f"Left out: {reason}.")
            return
        for candidate in remaining:
            if candidate.transfer is None:
                _score(context, stage, candidate)
                context.save()
        _give_up_worse_half(context, stage)


def _expected(candidate: Candidate) -> float:
    """Seconds of a ranking: about the start of a run, and a forward pass for each image."""
    return candidate.overhead / 2 + IMAGES * (candidate.milliseconds or 0) / 1000


def _saved(context: Context, remaining: Sequence[Candidate]) -> float:
    """Seconds on the first rung of the half that would be given up."""
    sizes = [math.ceil(size / context.trainings.lanes) for size in rung_sizes(len(remaining))]
    if not sizes:
        return 0.0
    overhead = fmean(candidate.overhead for candidate in remaining)
    end = plan_rungs(sizes, share_of_rungs(sizes) * context.clock.usable, overhead)[0]
    return max((1 + COOL_DOWN) * end + overhead, 0) * (len(remaining) // 2)


def _score(context: Context, stage: Stage, candidate: Candidate) -> None:
    folder = context.folder / "features"
    folder.mkdir(exist_ok=True)
    file, log = folder / f"{candidate.folder}.json", folder / f"{candidate.folder}.txt"
    cfg = context.trainings.config(context.wanted[candidate.name], TRAIN, CHOOSE)
    task = {"tree": to_plain(cfg), "images": IMAGES, "file": str(file)}
    command = [sys.executable, "-m", "d2timm.choose.features"]
    limit = min(3 * _expected(candidate) + MORE, context.clock.usable)
    with log.open("w") as output:
        try:
            subprocess.run(
                command,
                input=json.dumps(task),
                stdout=output,
                stderr=output,
                text=True,
                timeout=limit,
                check=True,
            )
            candidate.transfer = float(json.loads(file.read_text())["score"])
        except (subprocess.SubprocessError, OSError, ValueError):
            context.note(stage, f"{candidate.name} has no score, see {log.relative_to(context.folder)}.")


def _give_up_worse_half(context: Context, stage: Stage) -> None:
    scored = [candidate for candidate in context.choice.remaining if candidate.transfer is not None]
    ranked = sorted(scored, key=lambda candidate: -(candidate.transfer or 0))
    remaining = len(context.choice.remaining)
    kept = max(math.ceil(remaining / 2) - (remaining - len(scored)), FINALISTS)
    context.note(stage, "The best features: " + ", ".join(c.name for c in ranked[:kept]) + ".")
    for place, candidate in enumerate(ranked[kept:], kept + 1):
        reason = f"its features are place {place} of {len(ranked)} (LogME {candidate.transfer:.3f})"
        context.drop(stage, candidate, reason)
