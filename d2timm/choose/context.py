"""What the stages of a choice share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..runs.choice import Candidate, Choice, Stage
from ..sweep.stopping import SweepSignals
from .candidates import Wanted, unfit
from .clock import Clock, in_words
from .parts import TRAIN
from .trainings import Trainings

__all__ = ["Context", "Limits"]

CHECKPOINT_SECONDS = 120.0  # of training that an interruption may cost


@dataclass(frozen=True)
class Limits:
    """What a candidate must not exceed; None: anything is allowed.

    Attributes:
        licence: ``commercial``, or the name of a licence.
        parameters: of the detector.
        milliseconds: per image.
    """

    licence: str | None = None
    parameters: float | None = None
    milliseconds: float | None = None


@dataclass
class Context:
    """A choice that is being made.

    Attributes:
        folder: of the choice.
        choice: its state, which ``save`` writes.
        clock: its time.
        wanted: name -> the backbone as the user named it.
        limits: of the candidates.
        trainings: runs them.
    """

    folder: Path
    choice: Choice
    clock: Clock
    wanted: Mapping[str, Wanted]
    limits: Limits
    trainings: Trainings

    def usual_seconds(self, candidate: Candidate) -> float:
        """Seconds of a training of usual length; a longer one gains little."""
        return candidate.usual_epochs * self.choice.images[TRAIN] / candidate.batch_size * candidate.pace

    def checkpoint_period(self, candidate: Candidate) -> int:
        """Iterations between checkpoints, from which an interrupted training continues."""
        return max(int(CHECKPOINT_SECONDS / candidate.pace), 10)

    def save(self) -> None:
        """Write the state, from which an interrupted choice continues."""
        self.choice.write(self.folder)

    def is_done(self, name: str) -> bool:
        """Whether a stage has ended."""
        return any(stage.name == name and stage.status != "running" for stage in self.choice.stages)

    @contextmanager
    def stage(self, name: str, planned: float = 0.0, runs: str = "") -> Iterator[Stage]:
        """Begin a stage, or continue it; it is done at the end of the block, unless that raises.

        Args:
            name: of the stage.
            planned: seconds; those of its beginning stay.
            runs: the folder of its runs, which a signal stops; "": it has none.
        """
        stage = next((stage for stage in self.choice.stages if stage.name == name), None)
        if stage is None:
            stage = Stage(name, planned)
            self.choice.stages.append(stage)
        before, start = stage.seconds, time.monotonic()
        if runs:
            (self.folder / runs).mkdir(parents=True, exist_ok=True)
            if SweepSignals.current:
                SweepSignals.current.start(self.folder / runs)
        plan = f", {in_words(stage.planned)} planned" if stage.planned else ""
        print(f"{name}: {in_words(max(self.clock.left, 0))} left{plan}", flush=True)
        self.save()
        try:
            yield stage
            stage.status = "done" if stage.status == "running" else stage.status
        finally:
            stage.seconds = before + time.monotonic() - start
            self.save()

    def note(self, stage: Stage, text: str) -> None:
        """Print what a stage found, and keep it for the page."""
        stage.notes.append(text)
        print(f"  {text}", flush=True)

    def drop(self, stage: Stage, candidate: Candidate, reason: str) -> None:
        """Give a candidate up."""
        candidate.dropped, candidate.reason = stage.name, reason
        self.note(stage, f"{candidate.name} is dropped: {reason}")

    def drop_if_unfit(self, stage: Stage, candidate: Candidate) -> bool:
        """Give a candidate up if it exceeds a limit; returns whether it does."""
        limits = self.limits
        reason = unfit(candidate, limits.licence, limits.parameters, limits.milliseconds)
        if reason:
            self.drop(stage, candidate, reason)
        return bool(reason)
