"""What the pages of sweeps, choices and runs show."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.pages import EVIL, put_choice, put_full, put_sweep
from helpers.run_folders import put

from d2timm.report.page.content import make_content
from d2timm.report.page.parts import Content, duration
from d2timm.report.page.source import open_source
from d2timm.runs.choice import Choice, Stage


def content_of(folder: Path) -> Content:
    return make_content(open_source(folder))


def test_sweep(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    content = content_of(tmp_path)
    assert content.kind == "sweep"
    assert content.sentence == "model2 is best: bbox/AP 12.00."
    folder = tmp_path / "backbone=model2"
    assert dict(content.commands) == {
        "Detect objects with the best run": f"d2timm predict --run {folder} IMAGE --output detections",
        "Repeat the best run": "d2timm sweep backbone=model2",
    }
    assert list(content.figures) == ["pareto", "loss", "score"]
    assert [key.label for key in content.runs] == ["model2", "model1", "model0"]
    assert content.configs
    assert content.configs["keys"] == ["model.name", "train.seed"]
    assert content.images
    assert len(content.classes) == 1
    assert not any([content.stages, content.finals, content.metrics])


def test_sweep_with_equal_scores_names_the_ties(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path / name, 5)
    assert content_of(tmp_path).sentence == "a is best: bbox/AP 5.00. It ties with b, c."


def test_sweep_of_unfinished_runs(tmp_path: Path) -> None:
    put(tmp_path / "a", status="running")
    content = content_of(tmp_path)
    assert content.sentence == "No run has a score yet."
    assert content.notes == ["1 run: 1 killed."]
    assert not any([content.figures, content.commands, content.images, content.configs, content.classes])
    put(tmp_path / "b", 3, status="failed", error="too warm")
    assert "too warm" in content_of(tmp_path).sentence


def test_run(tmp_path: Path) -> None:
    put_full(
        tmp_path / "net", 10.0, command=["d2timm", "train"], notes=[f"note {EVIL}"], recipe={"name": "vit"}
    )
    content = content_of(tmp_path / "net")
    assert content.sentence == "net: bbox/AP 10.00 after 100 iterations."
    facts = dict(content.facts)
    assert facts["status"] == "done"
    assert facts["time per image"] == "100.0 ms"
    assert facts["recipe"] == "vit"
    assert content.notes == [f"note {EVIL}"]
    assert [label for label, _ in content.commands] == ["Detect objects with this run", "Repeat this run"]
    assert list(content.figures) == ["loss", "score"]
    assert content.configs is None
    assert content.leaderboard is None
    assert content.metrics


def test_run_without_anything(tmp_path: Path) -> None:
    put(tmp_path / "a", status="failed", error="no memory")
    content = content_of(tmp_path / "a")
    assert dict(content.facts) == {"status": "failed: no memory"}
    assert not any([content.figures, content.metrics, content.images])


def test_choice(tmp_path: Path) -> None:
    put_choice(tmp_path)
    content = content_of(tmp_path)
    assert content.sentence == "model2 is best with 90 %."
    assert list(content.figures) == ["pareto", "rungs", "loss", "score"]
    chosen = content.figures["pareto"]["data"][1]
    assert (chosen["name"], chosen["y"]) == ("chosen", [21.0])
    assert [key.label for key in content.candidates] == ["model0", "model1", "model2"]
    assert [(group.stage, group.candidates) for group in content.dropped] == [
        ("probe", [("model3", EVIL)]),
        ("rungs", [("model0", "too low")]),
    ]
    assert [(stage.name, round(stage.share)) for stage in content.stages] == [("probe", 25), ("rungs", 75)]
    assert content.correlations == [("transfer", "0.50")]
    assert content.finals
    assert dict(content.facts)["images"] == "90 to train, 10 to choose"
    assert (
        dict(content.commands)["Repeat the choice, or continue it"] == "d2timm choose data.root=photographs"
    )


def test_choice_that_has_just_started(tmp_path: Path) -> None:
    Choice(stages=[Stage("data")], started=1e9, deadline=1e9 + 60).write(tmp_path)
    content = content_of(tmp_path)
    assert content.sentence == "Nothing is decided yet. The stage that runs now: data."
    assert "to end by" in dict(content.facts)
    assert not any([content.figures, content.leaderboard, content.finals, content.dropped])
    assert [stage.share for stage in content.stages] == [0]


def test_moments_that_are_none(tmp_path: Path) -> None:
    Choice(started=1e300, ended=-1e300).write(tmp_path)
    assert content_of(tmp_path).facts == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (3599, "1 h 0 min"),
        (3900, "1 h 5 min"),
        (-1, ""),
        (1e300, ""),
        (float("nan"), ""),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
