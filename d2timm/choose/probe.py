"""What each candidate costs on this machine: some steps of training, and the detection of some images."""

from __future__ import annotations

from functools import partial

from ..backbone.zoo_table import read_rows
from ..engine.schedules import images_per_step, start_of, usual_epochs
from ..errors import ConfigError
from ..runs.choice import Candidate, Stage
from .candidates import licence_of
from .context import Context
from .parts import CHOOSE, PROBE, PROBED, TRAIN
from .trainings import Ended, Job

__all__ = ["NAME", "probe"]

NAME = "costs"
STEPS = 20
SHARE = 0.25  # of the time of a choice, after which no more candidates are probed
LIMIT, LEAST_LIMIT = 0.05, 60.0  # of the time of a choice that one candidate may take; seconds


def probe(context: Context) -> None:
    """Measure the candidates one by one, and give up those that fail or exceed a limit."""
    if context.is_done(NAME):
        return
    with context.stage(NAME, SHARE * context.clock.total, "probes") as stage:
        _look_up(context, stage)
        for candidate in context.choice.remaining:
            if candidate.seconds_per_step is not None:
                continue  # measured before an interruption
            if context.clock.left < (1 - SHARE) * context.clock.total:
                context.drop(stage, candidate, "no time was left to measure what it costs")
                context.save()
                continue
            limit = max(LEAST_LIMIT, LIMIT * context.clock.total)
            folder = context.folder / "probes" / candidate.folder
            length = (f"train.max_iter={STEPS}", f"train.checkpointer.period={STEPS}")
            job = Job(context.wanted[candidate.name], folder, TRAIN, PROBE, length, limit)
            context.trainings.run([job], partial(_note, context, stage, candidate))
        context.note(stage, f"{len(context.choice.remaining)} candidates fit.")


def _look_up(context: Context, stage: Stage) -> None:
    """Give candidates up whose licence or size is known without building them."""
    sizes = {row["model_name"]: row["parameters"] for row in read_rows()}
    for candidate in context.choice.remaining:
        if candidate.prior:
            continue  # looked up before an interruption
        candidate.licence = licence_of(candidate.name) if candidate.pretrained else ""
        candidate.parameters = sizes.get(candidate.name.partition(".")[0], 0)  # of the backbone alone
        if not context.drop_if_unfit(stage, candidate):
            _find_prior(context, stage, candidate)
    context.save()


def _find_prior(context: Context, stage: Stage, candidate: Candidate) -> None:
    """Find how a candidate is trained."""
    try:
        recipe, cfg = context.trainings.prior(context.wanted[candidate.name], TRAIN, CHOOSE)
    except ConfigError as error:
        context.drop(stage, candidate, str(error))
        return
    candidate.prior = recipe.get("name") or "the config's own"
    candidate.starts_slowly = bool(recipe.get("starts_slowly"))
    candidate.learning_rate = float(cfg.optimizer.lr)
    candidate.reference_batch_size = cfg.train.get("reference_batch_size")
    candidate.batch_size = images_per_step(cfg)
    candidate.usual_epochs = usual_epochs(context.choice.images[TRAIN], start_of(cfg))


def _note(context: Context, stage: Stage, candidate: Candidate, _: Job, ended: Ended) -> None:
    record = ended.record
    if ended.reason or not record.images_per_second or not record.iterations:
        context.drop(stage, candidate, ended.reason or "it could not be measured")
    else:
        candidate.parameters = record.parameters
        candidate.peak_memory_bytes = record.peak_memory_bytes
        candidate.milliseconds = 1000 / record.images_per_second
        candidate.seconds_per_step = record.train_seconds / record.iterations
        more = max(context.choice.images[CHOOSE] - PROBED, 0) * candidate.milliseconds / 1000
        candidate.overhead = max(ended.seconds - record.train_seconds, 0) + more
        if not context.drop_if_unfit(stage, candidate):
            context.note(
                stage,
                f"{candidate.name}: {candidate.seconds_per_step:.2f} s a step, "
                f"{candidate.milliseconds:.0f} ms an image, {candidate.parameters / 1e6:.1f} M parameters, "
                f"{candidate.peak_memory_bytes / 2**30:.1f} GiB",
            )
    context.save()
