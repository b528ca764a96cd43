"""Folders for pages, and what a page holds."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from helpers.run_folders import put
from PIL import Image

from d2timm.runs.choice import Candidate, Choice, Comparison, Final, Rung, Stage, Verdict
from d2timm.runs.samples import Sample, Samples, Shape

EVIL = "</script><img src=x onerror=alert(1)>"
CLASSES = ("cat", EVIL)


class Document(HTMLParser):
    """The elements of a page: (tag, attributes, text in the element before the next one)."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.elements:
            tag, attributes, text = self.elements[-1]
            self.elements[-1] = (tag, attributes, text + data)

    def texts(self, *tags: str) -> list[str]:
        """The texts of all elements with these tags."""
        return [text.strip() for tag, _, text in self.elements if tag in tags]

    def find(self, **attributes: str) -> tuple[str, dict[str, str | None], str] | None:
        """The first element with these attributes."""
        wanted = attributes.items()
        return next((e for e in self.elements if all(e[1].get(k) == v for k, v in wanted)), None)

    @property
    def data(self) -> dict[str, Any]:
        """The data for the script of the page."""
        found = self.find(type="application/json")
        assert found
        return dict(json.loads(found[2]))

    @property
    def sections(self) -> list[str]:
        """The headings of its sections."""
        return [text.strip() for tag, attributes, text in self.elements if tag == "h2" and "id" in attributes]


def picture(color: str = "red", size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG."""
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, "JPEG")
    return content.getvalue()


def put_samples(folder: Path, *scores: float, colors: tuple[str, ...] = ("red", "blue")) -> None:
    """Samples of a run, each with an object and detections of these scores."""
    box = (4.0, 4.0, 30.0, 30.0)
    detections = [
        Shape(i % 2, box, score, [[4.0, 4.0, 30.0, 4.0, 30.0, 30.0]]) for i, score in enumerate(scores)
    ]
    images = [Sample(f"{color}.jpg", 64, 48, picture(color), [Shape(1, box)], detections) for color in colors]
    Samples(list(CLASSES), images).write(folder)


def put_metrics(folder: Path, iterations: int = 30, pace: float = 0.5) -> None:
    """Lines as a training writes them."""
    lines = (
        {"iteration": i, "total_loss": 5 / (i + 1), "time": pace, "lr": 0.1} for i in range(0, iterations, 2)
    )
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def put_full(folder: Path, score: float, **fields: Any) -> Path:
    """The folder of a run with everything that a page shows."""
    costs = {"parameters": int(score * 1e6), "multiply_adds": 10**9, "images_per_second": 100 / score}
    put(
        folder,
        **{"model_name": folder.name, "train_seconds": 30.0, "peak_memory_bytes": 2**30, **costs, **fields},
    )
    record = json.loads((folder / "result.json").read_text())
    record["metrics"] = {
        "bbox": {"AP": score, "AP50": score * 1.5, **{f"AP-{name}": score for name in CLASSES}}
    }
    record["scores"] = [[10, score / 2], [30, score]]
    (folder / "result.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(
        f"model: {{name: {folder.name}}}\ntrain: {{seed: {int(score)}}}\nsame: 1\n"
    )
    put_metrics(folder)
    put_samples(folder, 0.9, 0.3)
    return folder


def put_sweep(folder: Path, runs: int = 3) -> Path:
    """A sweep of runs with rising scores and costs; the last one is the best."""
    for index in range(runs):
        put_full(
            folder / f"backbone=model{index}",
            10.0 + index,
            command=["d2timm", "sweep", f"backbone=model{index}"],
        )
    return folder


def put_choice(folder: Path, **changes: Any) -> Choice:
    """A choice of ``model2`` among four candidates, with its folders."""
    for name, score in (("model0", 10.0), ("model1", 11.0), ("model2", 12.0)):
        put_full(folder / "rungs" / name, score)
    finals = [
        Final(name, f"finals/{name}-{seed}", seed, score=20.0 + seed, counts=True)
        for name in ("model1", "model2")
        for seed in (0, 1)
    ]
    for final in finals:
        put_full(folder / final.folder, final.score or 0, model_name=final.name)
    put_full(folder / "winner" / "model2", 25.0, model_name="model2")
    candidates = [
        Candidate(
            f"model{i}",
            parameters=10**7,
            milliseconds=10.0 + i,
            rungs=[Rung(60, 90, 5.0 + i), Rung(120, 180, 8.0 + i)],
        )
        for i in range(3)
    ]
    candidates[0].dropped, candidates[0].reason = "rungs", "too low"
    candidates.append(Candidate("model3", dropped="probe", reason=EVIL))
    compared = [
        Comparison("model2", 21.0, 20.0, 22.0, 0.0, 0.9, False),
        Comparison("model1", 20.5, 19.5, 21.5, 0.5, 0.1, True),
    ]
    choice = Choice(
        **{
            "command": ["d2timm", "choose", "data.root=photographs"],
            "started": 1e9,
            "deadline": 1e9 + 1000,
            "ended": 1e9 + 990,
            "images": {"train": 90, "choose": 10},
            "seeds": 2,
            "correlations": {"transfer": 0.5},
            "stages": [
                Stage("probe", 100, 100, "done", ["Steps take 1 s."]),
                Stage("rungs", 300, 300, "done"),
            ],
            "candidates": candidates,
            "finals": finals,
            "verdict": Verdict(
                "model2",
                "model2 is best with 90 %.",
                compared,
                "winner/model2",
                test_score=19.0,
                command="d2timm predict",
            ),
            **changes,
        }
    )
    choice.write(folder)
    return choice
