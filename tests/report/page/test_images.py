"""The validation images of a page: each one once, with the detections of every run."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from helpers.pages import CLASSES, picture, put_samples, put_sweep
from helpers.run_folders import put

from d2timm.report.page.images import MOST_IMAGES, MOST_RUNS, SHOWN, images_of
from d2timm.report.page.source import open_source
from d2timm.runs.samples import Sample, Samples, Shape


def test_equal_images_are_on_the_page_once(tmp_path: Path) -> None:
    put_sweep(tmp_path, 2)
    put_samples(tmp_path / "backbone=model0", 0.7, colors=("blue", "green"))
    images = images_of(open_source(tmp_path).runs)
    assert images
    assert images["classes"] == [CLASSES[0], CLASSES[1]]
    assert [image["name"] for image in images["images"]] == ["blue.jpg", "red.jpg", "green.jpg"]
    assert base64.b64decode(images["images"][1]["jpeg"]) == picture("red")
    assert images["images"][0]["objects"] == [[1, None, [4.0, 4.0, 30.0, 30.0], []]]
    best, other = images["runs"]
    assert (best["label"], other["label"]) == ("model1", "model0")
    assert [None if found is None else len(found) for found in best["detections"]] == [2, 2, None]
    assert other["detections"][1] is None
    assert other["detections"][0] == [[0, 0.7, [4.0, 4.0, 30.0, 30.0], [[4.0, 4.0, 30.0, 4.0, 30.0, 30.0]]]]


def test_runs_may_number_their_classes_differently(tmp_path: Path) -> None:
    box = (1.0, 1.0, 5.0, 5.0)
    for name, classes in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
        folder = put(tmp_path / name, 1)
        shapes = [Shape(classes.index("dog"), box)]
        Samples(classes, [Sample("x.jpg", 64, 48, picture(), shapes, shapes)]).write(folder)
    images = images_of(open_source(tmp_path).runs)
    assert images
    assert images["classes"] == ["dog"]
    assert [run["detections"][0][0][0] for run in images["runs"]] == [0, 0]


def test_number_of_images_and_runs_is_limited(tmp_path: Path) -> None:
    colors = ("red", "green", "blue", "white", "black", "yellow", "cyan", "magenta")
    for index in range(MOST_RUNS + 2):
        put_samples(put(tmp_path / f"r{index}", 1), 0.5, colors=colors)
    images = images_of(open_source(tmp_path).runs)
    assert images
    assert len(images["images"]) == MOST_IMAGES
    assert len(images["runs"]) == MOST_RUNS
    assert sum(run["shown"] for run in images["runs"]) == SHOWN


def test_one_repeat_of_each_entry_is_shown_at_first(tmp_path: Path) -> None:
    for seed in range(3):
        command = ["t", f"train.seed={seed}"]
        put_samples(put(tmp_path / f"train.seed={seed}", 1, command=command), 0.5)
    images = images_of(open_source(tmp_path).runs)
    assert images
    assert [run["shown"] for run in images["runs"]] == [True, False, False]


def test_broken_samples_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_sweep(tmp_path, 2)
    (tmp_path / "backbone=model1" / "inference" / "samples.json").write_text("{")
    images = images_of(open_source(tmp_path).runs)
    assert images
    assert [run["label"] for run in images["runs"]] == ["model0"]
    assert "samples.json" in caplog.text


def test_runs_without_samples(tmp_path: Path) -> None:
    put(tmp_path / "a", 1)
    assert images_of(open_source(tmp_path).runs) is None
