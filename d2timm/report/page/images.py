"""The validation images of a page: each one once, with the detections of every run."""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError
from ...runs.samples import Samples, Shape
from ...utils.text import printable
from .source import ShownRun

__all__ = ["images_of"]

logger = logging.getLogger(__name__)

MOST_IMAGES = 6
MOST_RUNS = 40
SHOWN = 12  # runs that are shown at first


def images_of(runs: Sequence[ShownRun]) -> dict[str, Any] | None:
    """The images of runs, equal ones once; None if no run has any.

    Args:
        runs: the most important ones first.

    Returns:
        ``classes``; ``images``, each with ``name``, ``width``, ``height``, ``jpeg`` in base64 and
        ``objects``; ``runs``, each with ``label``, ``shown`` and, for each image, its detections or None.
        An object or detection is ``[class, score or None, [x0, y0, x1, y1], [[x, y, …], …]]``.
    """
    known = [(run, samples) for run in runs if (samples := _read(run)) is not None and samples.images]
    known = known[:MOST_RUNS]
    if not known:
        return None
    uses = Counter(image.jpeg for _, samples in known for image in samples.images)
    place = {jpeg: index for index, (jpeg, _) in enumerate(uses.most_common(MOST_IMAGES))}
    classes: dict[str, int] = {}
    images: list[dict[str, Any]] = [{} for _ in place]
    rows: list[dict[str, Any]] = []
    shown: Counter[str] = Counter()
    for run, samples in known:
        detections: list[Any] = [None] * len(place)
        for image in samples.images:
            if (index := place.get(image.jpeg)) is None:
                continue
            detections[index] = [_plain(shape, samples, classes) for shape in image.detections]
            images[index] = images[index] or {
                "name": printable(image.name),
                "width": image.width,
                "height": image.height,
                "jpeg": base64.b64encode(image.jpeg).decode(),
                "objects": [_plain(shape, samples, classes) for shape in image.objects],
            }
        shown[run.entry] += 1  # one run of each entry is enough at first
        rows.append({"label": run.label, "shown": shown[run.entry] == 1, "detections": detections})
    if sum(row["shown"] for row in rows) > SHOWN:
        for row in [row for row in rows if row["shown"]][SHOWN:]:
            row["shown"] = False
    return {"classes": list(classes), "images": images, "runs": rows}


def _read(run: ShownRun) -> Samples | None:
    try:
        return Samples.read(run.folder)
    except ConfigError as error:
        logger.warning("%s", error)
        return None


def _plain(shape: Shape, samples: Samples, classes: dict[str, int]) -> list[Any]:
    """A shape as JSON; runs may number their classes differently."""
    label = classes.setdefault(printable(samples.classes[shape.label]), len(classes))
    return [label, shape.score, list(shape.box), [outline for outline in shape.outlines if len(outline) > 5]]
