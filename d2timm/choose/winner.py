"""The end of a choice: the chosen backbone is trained on all images but the test images, and tested once."""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..report.bootstrap import Matches, draw_scores
from ..runs.checkpoint import last_checkpoint
from ..runs.choice import Candidate, Stage, Verdict
from ..runs.record import Record
from .context import Context
from .parts import FINAL, TEST, TRAIN
from .rungs import MORE, SLACK
from .trainings import Ended, Job
from .verdict import compare_finalists, correlate, describe_choice, pick

__all__ = ["NAME", "conclude"]

NAME = "winner"
TASKS = {"bbox": "box AP", "segm": "mask AP", "keypoints": "keypoint AP"}
RETRAIN = 0.9  # of the length of a final: with less time, a detector of the finals is delivered
EXPORT_MARGIN = 5.0  # seconds before the deadline at which an export is given up


def conclude(context: Context) -> None:
    """Decide, train the chosen backbone with the time that is left, test it once and export it."""
    choice = context.choice
    with context.stage(NAME, runs="winner") as stage:
        if choice.verdict is None or not choice.verdict.compared:
            metric = _metric(context)
            compared = compare_finalists(context.folder, choice, metric)
            if not compared:
                raise ConfigError("no candidate has a score: the reasons are above, and in choice.json")
            choice.verdict = Verdict(pick(compared, choice.candidates).name, compared=compared, metric=metric)
            choice.correlations = correlate(choice)
            for stage_name, value in choice.correlations.items():
                context.note(stage, f"Rank correlation of {stage_name} with the last scores: {value:.2f}.")
            context.save()
        candidate = next(c for c in choice.candidates if c.name == choice.verdict.name)
        if not choice.verdict.folder:
            _deliver(context, stage, candidate)
        _export(context, stage, choice.verdict)
        _speak(context, choice.verdict, candidate)


def _metric(context: Context) -> str:
    """The metric by which the trainings were compared."""
    for candidate in context.choice.remaining:
        record = Record.read(context.folder / "probes" / candidate.folder)
        if record:
            return record.metric
    return Record.metric


def _deliver(context: Context, stage: Stage, candidate: Candidate) -> None:
    """Train on train and choose, or take the best detector of the finals, and test it."""
    images = sum(context.choice.images.values()) - context.choice.images[TEST]
    overhead = candidate.overhead * max(context.choice.images[TEST] / context.choice.images["choose"], 1)
    seconds = context.clock.usable - overhead
    most = context.usual_seconds(candidate) * images / context.choice.images[TRAIN]
    verdict = context.choice.verdict
    assert verdict is not None, "made before"
    finals = [f for f in context.choice.finals if f.name == candidate.name and f.counts]
    factor = finals[0].lr_factor if finals else 1.0
    folder = context.folder / "winner" / candidate.folder
    earlier = Record.read(folder)
    if earlier or seconds >= RETRAIN * context.choice.final_seconds:
        iterations = earlier.max_iter if earlier else 0
        iterations = iterations or max(int(min(seconds, most) / candidate.pace), 1)
        overrides = (
            f"train.max_iter={iterations}",
            f"optimizer.lr={candidate.learning_rate * factor}",
            f"train.reference_batch_size={candidate.reference_batch_size or 'null'}",
            f"train.checkpointer.period={context.checkpoint_period(candidate)}",
        )
        limit = min(SLACK * (seconds + overhead) + MORE, context.clock.left - EXPORT_MARGIN)
        job = Job(context.wanted[candidate.name], folder, FINAL, TEST, overrides, limit)
        context.trainings.run([job], lambda _, ended: _note(context, stage, folder, ended))
    if not verdict.folder:
        _test_a_final(context, stage, candidate)


def _test_a_final(context: Context, stage: Stage, candidate: Candidate) -> None:
    """Test the best detector that the finals, or the rungs, have trained."""
    finals = [f for f in context.choice.finals if f.name == candidate.name and f.score is not None]
    if finals:
        source = context.folder / max(finals, key=lambda final: final.score or 0).folder
    else:
        source = context.folder / "rungs" / candidate.folder
    context.note(
        stage, f"No time for a training on all images: {source.relative_to(context.folder)} is tested."
    )
    folder = context.folder / "winner" / f"{candidate.folder}-tested"
    best = source / "model_best.pth"  # after the cool-down, if it is a rung
    weights = best if best.is_file() else last_checkpoint(source)
    overrides = (f"train.init_checkpoint={weights}",)
    limit = max(context.clock.left - EXPORT_MARGIN, MORE)
    job = Job(context.wanted[candidate.name], folder, TRAIN, TEST, overrides, limit, eval_only=True)
    context.trainings.run([job], lambda _, ended: _note(context, stage, folder, ended, source, weights))


def _note(
    context: Context,
    stage: Stage,
    folder: Path,
    ended: Ended,
    source: Path | None = None,
    weights: Path | None = None,
) -> None:
    """Keep the result on the test images, and where the detector is that has it."""
    verdict = context.choice.verdict
    assert verdict is not None, "made before"
    if ended.reason:
        context.note(stage, f"{folder.name} failed: {ended.reason}")
        return
    record = ended.record
    verdict.folder = str((source or folder).relative_to(context.folder))
    verdict.weights = str(weights.relative_to(context.folder)) if weights else ""
    verdict.test_score = record.score
    verdict.test_images = context.choice.images[TEST]
    if record.images_per_second:
        verdict.milliseconds = 1000 / record.images_per_second
    task = verdict.metric.partition("/")[0]
    try:
        matches = Matches.read(folder / "inference" / f"matches-{task}.npz")
        spread = float(np.nanstd(draw_scores([[matches]])))
        verdict.test_spread = spread if math.isfinite(spread) else None
    except ConfigError:
        verdict.test_spread = None
    context.save()


def _export(context: Context, stage: Stage, verdict: Verdict) -> None:
    """Export the chosen detector, if the time allows it, and measure the speed of the file."""
    has_onnx = all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "onnxscript")))
    name = "detector.onnx" if has_onnx else "detector.pt2"
    run = context.folder / verdict.folder
    detector = ["--run", str(run)]
    if verdict.weights:
        detector += ["--weights", str(context.folder / verdict.weights)]
    export = ["export", *detector, "--output", str(context.folder / name)]
    verdict.command = shlex.join(["d2timm", "predict", *detector, "PHOTOGRAPH", "--output", "found"])
    if verdict.exported or not verdict.folder:
        return
    limit = context.clock.left - EXPORT_MARGIN
    try:
        if limit <= 0:
            raise subprocess.TimeoutExpired(export, limit)
        with (context.folder / "export.txt").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "d2timm", *export], stdout=log, stderr=log, timeout=limit, check=True
            )
        verdict.exported = name
        measured = context.folder / "export.json"
        images = context.folder / "data" / "probe.json"
        task = [str(context.folder / name), str(images), str(measured)]
        limit = max(context.clock.left - EXPORT_MARGIN, 0.1)
        command = [sys.executable, "-m", "d2timm.choose.exported", *task]
        subprocess.run(command, timeout=limit, check=True, capture_output=True)
        verdict.milliseconds = float(json.loads(measured.read_text())["milliseconds"])
        context.note(stage, f"{name}: {verdict.milliseconds:.0f} ms an image.")
    except subprocess.TimeoutExpired:
        by_hand = shlex.join(["d2timm", *export])
        context.note(stage, f"No time is left for the export or its speed: {by_hand}")
    except (subprocess.SubprocessError, OSError, ValueError):
        context.note(stage, "The export failed, see export.txt.")
    context.save()


def _speak(context: Context, verdict: Verdict, candidate: Candidate) -> None:
    kind = TASKS.get(verdict.metric.removesuffix("/AP"), verdict.metric)
    if verdict.test_score is None:
        score = "not tested"
    else:
        spread = "" if verdict.test_spread is None else f" ± {verdict.test_spread:.1f}"
        score = f"{kind} {verdict.test_score:.1f}{spread} on {verdict.test_images} held-out photographs"
    verdict.sentence = describe_choice(context.choice, score, verdict.milliseconds or candidate.milliseconds)
    context.save()
