"""``d2timm predict``: images, folders, patterns and videos in; pictures, videos and JSON out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.choices import compose
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save_file

from d2timm.cli import main
from d2timm.config import lazy as config
from d2timm.config.build import build_model
from d2timm.inference.predictor import load
from d2timm.inference.video import Video, open_writer

Predict = Callable[..., int]

THRESHOLD = ["--score-threshold", "0.15"]  # all scores of the tiny run are low


@pytest.fixture
def predict(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Predict:
    """Run the command on the tiny run, in a temporary folder: arguments -> exit code."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str | Path, run: Path = tiny_run) -> int:
        return main(["predict", "--run", str(run), "--device", "cpu", *map(str, arguments)])

    return run_command


@pytest.fixture
def photos(small_coco: Any, tmp_path: Path) -> Path:
    """Two folders with images of the same name, and a text file."""
    root = tmp_path / "photos"
    for folder, name in (("a", "0.png"), ("b", "1.png")):
        (root / folder).mkdir(parents=True)
        shutil.copy(small_coco.val_images / name, root / folder / "same.png")
    (root / "b" / "notes.txt").write_text("not an image")
    return root


def results_in(folder: str | Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((Path(folder) / "predictions.json").read_text())
    return results


def files_in(folder: str | Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def test_results_keep_the_folders_of_inputs(
    predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("photos", "--output", "out", "--batch-size", "2", *THRESHOLD) == 0
    assert files_in("out") == ["a/same.jpg", "b/same.jpg", "predictions.json"]
    results = results_in("out")
    assert [(image["id"], image["file_name"]) for image in results["images"]] == [
        (1, "a/same.png"),
        (2, "b/same.png"),
    ]
    assert results["info"]["image_root"] == str(photos)
    assert [c["id"] for c in results["categories"]] == [1, 2, 3, 4]
    number = len(results["annotations"])
    assert number > 0
    assert {a["image_id"] for a in results["annotations"]} == {1, 2}
    out, err = capsys.readouterr()
    left_out, summary = out.splitlines()
    assert left_out == "photos: 1 file that is neither an image nor a video was left out: notes.txt"
    assert summary.startswith(f"2 images, {number} detections, ")
    assert out.endswith("out/predictions.json\n")
    assert err == ""
    picture = cv2.imread("out/a/same.jpg")
    assert picture.shape == (400, 480, 3), "5 times 80 x 96"
    plain = cv2.resize(cv2.imread(str(photos / "a" / "same.png")), (480, 400))
    assert np.abs(picture.astype(int) - plain).mean() > 10


def test_repeated_command_replaces_its_results(predict: Predict, photos: Path) -> None:
    command = ["photos/**/*.png", "--output", "photos/out"]
    assert predict(*command) == 0
    first = results_in("photos/out")
    assert predict(*command) == 0
    assert results_in("photos/out") == first
    assert files_in("photos/out") == ["a/same.jpg", "b/same.jpg", "predictions.json"]
    assert predict("photos", "--output", "photos/out") == 0
    assert len(results_in("photos/out")["images"]) == 2, "results are not inputs"


def test_detections_equal_those_of_the_predictor(predict: Predict, photos: Path, tiny_run: Path) -> None:
    assert predict("photos/a/same.png", "--output", "out", "--no-pictures", *THRESHOLD) == 0
    assert files_in("out") == ["predictions.json"]
    results, predictor = results_in("out"), load(tiny_run, device="cpu", score_threshold=0.15)
    expected = predictor(photos / "a" / "same.png")
    assert [a["score"] for a in results["annotations"]] == expected.scores.tolist()
    names = {c["id"]: c["name"] for c in results["categories"]}
    assert [names[a["category_id"]] for a in results["annotations"]] == [
        predictor.class_names[i] for i in expected.pred_classes
    ]


def test_evaluating_the_json_reproduces_the_metrics_of_the_run(
    predict: Predict, small_coco: Any, tiny_run: Path
) -> None:
    options = ["--no-pictures", "--ids-from", str(small_coco.val_json), "--score-threshold", "0.05"]
    assert predict(small_coco.val_images, "--output", "out", *options) == 0
    coco = COCO(str(small_coco.val_json))
    expected = json.loads((tiny_run / "result.json").read_text())["metrics"]["bbox"]
    evaluation = COCOeval(coco, coco.loadRes(results_in("out")["annotations"]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    for index, name in ((0, "AP"), (1, "AP50"), (8, "AR100")):
        assert 100 * evaluation.stats[index] == pytest.approx(expected[name], abs=1e-6)
    assert expected["AP"] > 0


def test_broken_files_do_not_stop_the_others(
    predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a" / "broken.jpg").write_bytes((photos / "a" / "same.png").read_bytes()[:100])
    (photos / "a" / "broken.mp4").write_text("not a video")
    assert predict("photos", "--output", "out", "--batch-size", "2") == 1
    assert files_in("out") == ["a/same.jpg", "b/same.jpg", "predictions.json"]
    out, err = capsys.readouterr()
    assert "2 could not be read" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"error: {photos / 'a' / 'broken.jpg'}: ")
    assert lines[1].startswith(f"error: {photos / 'a' / 'broken.mp4'}: ")


def test_huge_images_are_drawn_and_segmented_at_a_reduced_size(
    predict: Predict, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, quarter = "photos/a/same.png", (40, 48)
    assert predict(file, "--output", "whole", *THRESHOLD) == 0
    monkeypatch.setattr("d2timm.inference.canvas.MAX_PIXELS", quarter[0] * quarter[1])
    capsys.readouterr()
    assert predict(file, "--output", "reduced", *THRESHOLD) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("computed at a reduced size")
    whole, reduced = results_in("whole"), results_in("reduced")
    assert reduced["images"] == whole["images"]
    for a, b in zip(whole["annotations"], reduced["annotations"], strict=True):
        assert (a["score"], a["category_id"]) == (b["score"], b["category_id"])
        assert b["bbox"] == pytest.approx(a["bbox"], abs=1e-3)
    # 80 x 96 and 40 x 48 pixels, enlarged for the labels
    assert [cv2.imread(f"{name}/same.jpg").shape[:2] for name in ("whole", "reduced")] == [(400, 480)] * 2


def test_size_limit_is_an_option(predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = "photos/a/same.png"
    assert predict(file, "--output", "out", "--max-pixels", str(80 * 96 - 1)) == 1
    assert "--max-pixels 7680" in capsys.readouterr().err
    assert predict(file, "--output", "out", "--max-pixels", "7680") == 0
    assert predict(file, "--output", "out", "--max-pixels", "0") == 2


def test_lack_of_memory_is_one_line(
    predict: Predict, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = iter([MemoryError("Unable to allocate 40 GiB"), RuntimeError("DefaultCPUAllocator: no memory")])

    def fail(*arguments: Any) -> None:
        raise next(errors)

    monkeypatch.setattr("d2timm.inference.predict.draw", fail)
    assert predict("photos", "--output", "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [str(photos / x / "same.png") for x in "ab"]
    assert all("memory" in line for line in lines)


def test_videos(predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = cv2.resize(cv2.imread(str(photos / "a" / "same.png")), (64, 64))[..., ::-1]
    with open_writer(photos / "clip.mp4", 12.5) as write:
        for shift in range(5):
            write(np.roll(still, 3 * shift, axis=1))
    assert predict("photos/clip.mp4", "photos/a", "--output", "out", "--batch-size", "2", *THRESHOLD) == 0
    assert files_in("out") == ["a/same.jpg", "clip.mp4", "predictions.json"]
    video = Video(Path("out/clip.mp4"))
    frames = list(video)
    assert (video.fps, len(frames), frames[0].shape) == (12.5, 5, (64, 64, 3))
    originals = list(Video(photos / "clip.mp4"))
    assert all(np.abs(x.astype(int) - y).mean() > 5 for x, y in zip(frames, originals, strict=True))
    results = results_in("out")
    assert results["videos"] == [{"id": 1, "name": "clip.mp4", "fps": 12.5}]
    assert [image["file_name"] for image in results["images"]] == [
        *(f"clip.mp4#{i}" for i in range(5)),
        "a/same.png",
    ]
    assert capsys.readouterr().out.startswith("1 image, 5 frames, ")


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """An exported detector whose backbone is a transformer."""
    torch.manual_seed(0)
    cfg = compose("rcnn", "fpn", "box", "model.backbone.bottom_up.model_name=test_vit")
    labels = {"classes": ["circle", "square", "triangle", "star"], "stuff": [], "keypoints": []}
    cfg.data.labels = labels
    state = build_model(cfg).state_dict()
    save_file(
        state, tmp_path / "x.safetensors", {"config": config.to_yaml(cfg), "labels": json.dumps(labels)}
    )
    return tmp_path / "x.safetensors"


def test_features_of_an_exported_detector(
    predict: Predict, photos: Path, merged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("photos/a", "--output", "out", "--features", run=merged) == 0
    grids = ["same.attention.png", "same.features.png"]
    assert files_in("out") == ["predictions.json", *grids, "same.jpg"]
    for grid in grids:
        assert cv2.imread(f"out/{grid}").std() > 10
    assert capsys.readouterr().out.count("\n") == 1


def test_model_without_attention_has_no_attention_picture(
    predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("photos", "--output", "out", "--features", "--no-pictures") == 0
    assert files_in("out") == ["a/same.features.png", "b/same.features.png", "predictions.json"]
    _, note, summary = capsys.readouterr().out.splitlines()
    assert note.startswith("attention: ")
    assert summary.startswith("2 images, ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no.jpg"], "no.jpg: no such file or folder"),
        (["photos/*.bmp"], "photos/*.bmp: no images or videos"),
        (["photos", "--output", "photos"], "photos: choose another folder"),
        (["photos", "--output", "full"], "--output full contains files but no predictions.json"),
        (["photos", "--output", "full/file"], "--output full/file: Not a directory"),
        (["photos", "--output", "full/file/x"], "--output full/file/x: Not a directory"),
        (["photos", "--score-threshold", "50"], "score_threshold=50.0"),
        (["photos", "--batch-size", "0"], "batch_size=0"),
        (["photos", "--weights", "no.pth"], "no.pth: no such file"),
        (["photos", "--run", "photos"], "photos is not a run folder"),
        (["photos", "--ids-from", "full/file"], "full/file"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    arguments: list[str], reason: str, predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    before = files_in(".")
    assert predict("--output", "out", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert reason in err
    assert files_in(".") == before
    assert not Path("out").exists()


def test_results_before_an_interrupt_are_kept(
    predict: Predict, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(file: Path, picture: Any) -> None:
        if "b" in file.parts:
            raise KeyboardInterrupt

    monkeypatch.setattr("d2timm.inference.predict.write_picture", interrupt)
    assert predict("photos", "--output", "out") == 130  # as shells report Ctrl-C
    assert [image["file_name"] for image in results_in("out")["images"]] == ["a/same.png", "b/same.png"]


def test_help_does_not_import_heavy_packages() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "d2timm", "predict", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--features" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "d2timm.cli" in imported
    assert not {"torch", "timm", "detectron2", "cv2"} & imported
