"""``d2timm choose``: the backbone that is best for a user's images, in a given time.

    data -> costs -> features -> rungs -> finals -> winner

Each stage gives candidates up and keeps the others for a longer look. The state is in ``choice.json`` at any
moment, and a choice that was interrupted, or killed, goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig

from ..config.build import resolve_dataset
from ..config.lazy import find_config, load
from ..config.overrides import apply_overrides
from ..data.catalog import get_dataset, tasks_of
from ..data.datasets.coco import CustomDataset
from ..data.own import checkable
from ..engine.recipes import given_keys
from ..errors import ConfigError
from ..report.page.write import PAGE, write_page
from ..runs.choice import Candidate, Choice, Verdict
from ..runs.record import hold
from ..sweep.stopping import SweepSignals
from ..utils.text import one_line
from .candidates import Wanted, check_licence
from .clock import Clock, find_deadline
from .context import Context, Limits
from .finals import compete
from .parts import write_parts
from .probe import probe
from .rungs import UndecidedError, climb
from .trainings import Trainings
from .transfer import rank
from .winner import conclude

__all__ = ["Request", "choose"]

BOXES, MASKS = "faster_rcnn_timm.py", "mask_rcnn_timm.py"
#: Keys whose values follow from the time and the candidates
TAKEN = (
    *("train.output_dir", "train.max_iter", "train.epochs", "train.budget_hours", "train.pause_at"),
    *("train.cool_down", "train.eval_period", "train.eval_epochs", "train.seed", "lr_multiplier"),
    *("model.backbone.bottom_up.model_name", "model.backbone.bottom_up.checkpoint_path"),
)
#: Overrides of every training, which a user's own come after
USUAL = ("train.eval_period=0", "train.checkpointer.max_to_keep=1", "train.tune=off")


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        output: folder of the choice.
        candidates: the backbones.
        overrides: of the config; they name the images.
        config_file: the config; None: one for the annotations of the images.
        by: when the choice must have ended.
        hours: or how long it may take.
        limits: of the candidates.
        jobs: number of trainings at the same time; None: one for each GPU.
        command: the command line.
    """

    output: Path
    candidates: Sequence[Wanted]
    overrides: Sequence[str]
    config_file: str | None
    by: str | None
    hours: float | None
    limits: Limits
    jobs: int | None
    command: Sequence[str]


def choose(request: Request) -> Choice:
    """Choose a backbone, or go on with the choice in the folder.

    Returns:
        The choice, with its verdict.

    Raises:
        ConfigError: the user made a mistake, or no candidate could be trained.
        Interrupted: a signal asked the choice to stop; it can go on.
    """
    for key in given_keys(request.overrides):
        if any(key == taken or key.startswith(f"{taken}.") for taken in TAKEN):
            raise ConfigError(f"{key} follows from the time and the candidates: leave it out")
    check_licence(request.limits.licence)
    folder = request.output.resolve()
    choice = _open(request, folder)
    if choice.ended is not None:
        return choice
    config_file, cfg = _config(request)
    dataset = checkable(get_dataset(cfg.data))
    overrides = [*USUAL, *request.overrides]
    trainings = Trainings(folder, config_file, overrides, cfg.data.name, _lanes(request.jobs))
    wanted = {wanted.name: wanted for wanted in request.candidates}
    clock = Clock(choice.started, choice.deadline)
    context = Context(folder, choice, clock, wanted, request.limits, trainings)
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder), SweepSignals().handled():
        if not context.is_done("data"):
            _divide(context, cfg, dataset)
        try:
            for stage in (probe, rank, climb, compete):
                stage(context)
            conclude(context)
        except UndecidedError as undecided:
            choice.verdict = Verdict(sentence=str(undecided))
        choice.ended = time.time()
        context.save()
        _write_page(folder)
    return choice


def _write_page(folder: Path) -> None:
    """Write the page; the verdict does not depend on it."""
    try:
        write_page(folder)
    except OSError as error:
        print(f"{folder / PAGE} cannot be written: {one_line(error)}; d2timm report {folder} writes it")


def _open(request: Request, folder: Path) -> Choice:
    """The choice in a folder, or a new one.

    Raises:
        ConfigError: it was begun with other settings, or its time is over.
    """
    settings = {
        "candidates": [[wanted.name, wanted.weights] for wanted in request.candidates],
        "overrides": sorted(request.overrides),
        "config_file": request.config_file,
        "limits": asdict(request.limits),
    }
    choice = Choice.read(folder)
    if choice is None or not choice.candidates:  # not even the images were read
        now = time.time()
        return Choice([*request.command], settings, now, find_deadline(request.by, request.hours, now))
    if choice.settings != settings:
        key = next(key for key in settings if choice.settings.get(key) != settings[key])
        raise ConfigError(f"{folder} holds a choice with other {key}: choose another --output")
    if choice.ended is None:
        choice.deadline = find_deadline(request.by, request.hours, choice.started)
        if choice.deadline <= time.time():
            raise ConfigError(
                f"{folder}: the time of this choice is over; to go on, give it more by --by or --hours"
            )
    return choice


def _divide(context: Context, cfg: DictConfig, dataset: CustomDataset) -> None:
    """Check the images and divide them."""
    with context.stage("data") as stage:
        for split in dataset.splits():
            context.note(stage, dataset.check(split, tasks_of(cfg.data)))
        context.choice.images, notes = write_parts(dataset, context.folder)
        for note in notes:
            context.note(stage, note)
        pretrained = bool(cfg.model.backbone.bottom_up.get("pretrained"))
        context.choice.candidates = [
            Candidate(wanted.name, pretrained=pretrained and not wanted.weights)
            for wanted in context.wanted.values()
        ]


def _config(request: Request) -> tuple[str, DictConfig]:
    """The name of the config, and its tree with the user's overrides, its dataset resolved."""
    if request.config_file is None:
        naming = [text for text in request.overrides if text.lstrip("+~").startswith("data.")]
        boxes = apply_overrides(load(find_config(BOXES)), naming)
        resolve_dataset(boxes)
        columns = checkable(get_dataset(boxes.data)).split("train").columns
        config_file = MASKS if columns.has_mask[~columns.crowds].any() else BOXES
    else:
        config_file = request.config_file
    cfg = apply_overrides(load(find_config(config_file)), request.overrides)
    resolve_dataset(cfg)
    return config_file, cfg


def _lanes(jobs: int | None) -> int:
    """How many trainings run at the same time."""
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: at least 1")
    return jobs or max(1, torch.cuda.device_count())
