"""``choice.json``: the state of a choice between backbones, up to date at any moment.

A choice continues from this file, and its page is drawn from it and from the run folders beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from ..utils.files import atomic_write
from ..utils.text import one_line

__all__ = ["FILE", "Candidate", "Choice", "Comparison", "Final", "Rung", "Stage", "Verdict"]

FILE = "choice.json"


@dataclass
class Rung:
    """What a candidate had reached when it was compared with the others.

    Attributes:
        seconds: of training so far, without those of the cool-down.
        iterations: of training so far, without those of the cool-down.
        score: of the weights after the cool-down, in percent; None: there is none.
        extended: whether the candidate went on although its score was not among the better ones.
    """

    seconds: float
    iterations: int
    score: float | None
    extended: bool = False


@dataclass
class Candidate:
    """A backbone, and what is known of it.

    Attributes:
        name: timm's name.
        pretrained: whether it begins with weights of timm, which have a licence.
        licence: of these weights, as timm knows it; "" if it does not.
        prior: the name of the prior by which it is trained.
        learning_rate: of the prior.
        reference_batch_size: images per step for which it is meant; None: those of the config.
        starts_slowly: whether its first rung decides nothing.
        usual_epochs: length of a complete training on these images.
        batch_size: images per step.
        parameters: of the detector.
        seconds_per_step: of the training on this machine, as it was last measured.
        overhead: seconds that a run takes beside its training: start, evaluation and saving.
        milliseconds: per image, of the detector on this machine.
        peak_memory_bytes: of the training.
        transfer: score of its frozen features before any training; higher is better.
        schedule: iterations of the schedule of which the rungs are parts; 0: not yet known.
        rungs: in their order.
        dropped: the stage after which it was given up; "": it was not.
        reason: why.
        late: whether it was given up because it did not end in its time.
    """

    name: str
    pretrained: bool = False
    licence: str = ""
    prior: str = ""
    learning_rate: float = 0.0
    reference_batch_size: int | None = None
    starts_slowly: bool = False
    usual_epochs: float = 0.0
    batch_size: int = 1
    parameters: int = 0
    seconds_per_step: float | None = None
    overhead: float = 0.0
    milliseconds: float | None = None
    peak_memory_bytes: int = 0
    transfer: float | None = None
    schedule: int = 0
    rungs: list[Rung] = field(default_factory=list)
    dropped: str = ""
    reason: str = ""
    late: bool = False

    @property
    def folder(self) -> str:
        """The name of the folders of its runs."""
        return re.sub(r"[^\w.=+-]", "_", self.name)

    @property
    def score(self) -> float:
        """The score on its latest rung, in percent; -1 without one."""
        score = self.rungs[-1].score if self.rungs else None
        return -1.0 if score is None else score

    @property
    def pace(self) -> float:
        """Seconds per step, once they are measured."""
        if self.seconds_per_step is None:
            raise ValueError(f"the steps of {self.name} are not measured")
        return self.seconds_per_step


@dataclass
class Final:
    """A complete training of a finalist.

    Attributes:
        name: timm's name of the backbone.
        folder: of the run, relative to that of the choice.
        seed: of the run.
        lr_factor: of the learning rate of the prior.
        iterations: that it trains; 0: not yet known.
        score: on the images for choosing, in percent; None: not yet, or it failed.
        failed: whether it ended without a score, or has not begun for lack of time.
        counts: whether the finalist is judged by it; not if another learning rate is better.
    """

    name: str
    folder: str
    seed: int
    lr_factor: float = 1.0
    iterations: int = 0
    score: float | None = None
    failed: bool = False
    counts: bool = False


@dataclass
class Comparison:
    """A finalist beside the best one.

    Attributes:
        name: timm's name of the backbone.
        score: mean over its seeds, in percent.
        low: lower end of the interval of 95 % of the score.
        high: upper end.
        behind: by how much the best one has the higher score; 0 for the best one.
        probability: that no other is better, 0 to 1.
        tied: whether the difference to the best one may be chance.
    """

    name: str
    score: float
    low: float
    high: float
    behind: float
    probability: float
    tied: bool


@dataclass
class Stage:
    """A part of the choice.

    Attributes:
        name: as in ``Candidate.dropped``.
        planned: seconds; 0: as many as it takes.
        seconds: that it has taken so far.
        status: ``running``, ``done`` or ``skipped``.
        notes: what it found, in sentences.
    """

    name: str
    planned: float = 0.0
    seconds: float = 0.0
    status: str = "running"
    notes: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """The result of a choice.

    Attributes:
        name: timm's name of the chosen backbone; "": nothing could be decided.
        sentence: the result in words.
        compared: the finalists, the best one first.
        folder: of the chosen detector, relative to that of the choice; "": there is none.
        weights: its checkpoint, relative to that of the choice; "": the last one of the folder.
        metric: such as ``bbox/AP``.
        test_score: on the test images, in percent.
        test_spread: standard deviation of it over draws of the test images.
        test_images: their number.
        milliseconds: per image, of the detector as it is delivered.
        exported: file of the exported detector, relative to the folder of the choice; "": there is none.
        command: a command line that detects objects with the chosen detector.
    """

    name: str = ""
    sentence: str = ""
    compared: list[Comparison] = field(default_factory=list)
    folder: str = ""
    weights: str = ""
    metric: str = "bbox/AP"
    test_score: float | None = None
    test_spread: float | None = None
    test_images: int = 0
    milliseconds: float | None = None
    exported: str = ""
    command: str = ""


@dataclass
class Choice:
    """The state of a choice.

    Attributes:
        command: the command line that repeats it.
        settings: what a choice that continues must have in common with its beginning.
        started: when, in seconds since 1970.
        deadline: when it must have ended, in seconds since 1970.
        ended: when it has ended; None: it has not.
        images: part of the dataset (``train``, ``choose``, ``test``) -> number of images.
        plan: seconds of training at which each rung ends, without cool-downs.
        decided: number of rungs after which candidates were given up.
        seeds: number of seeds of each finalist.
        final_seconds: seconds of training of each final.
        correlations: stage -> rank correlation of its scores with those of the last rung that both have.
        stages: in their order.
        candidates: in the order in which the user named them.
        finals: in their order.
        verdict: the result; None: not yet.
    """

    command: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    deadline: float = 0.0
    ended: float | None = None
    images: dict[str, int] = field(default_factory=dict)
    plan: list[float] = field(default_factory=list)
    decided: int = 0
    seeds: int = 0
    final_seconds: float = 0.0
    correlations: dict[str, float] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    verdict: Verdict | None = None

    @classmethod
    def read(cls, folder: Path) -> Choice | None:
        """Read the choice in a folder; None if there is none. Keys of later versions are left out.

        Raises:
            ConfigError: the file cannot be read, or no choice wrote it.
        """
        file = folder / FILE
        try:
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise ConfigError(f"{file}: {one_line(error)}") from None

    def write(self, folder: Path) -> None:
        """Write the choice to a folder."""
        with atomic_write(folder / FILE) as partial:
            partial.write_bytes(msgspec.json.format(msgspec.json.encode(self)))

    @property
    def remaining(self) -> list[Candidate]:
        """The candidates that were not given up."""
        return [candidate for candidate in self.candidates if not candidate.dropped]
