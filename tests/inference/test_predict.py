"""scripts/predict.py: images, folders, patterns and videos in; pictures, videos and JSON out."""

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
from faster_coco_eval import COCO, COCOeval_faster
from helpers import commands
from helpers.choices import compose
from safetensors.torch import save_file

from d2timm.config.build import build_model
from d2timm.config.lazy import lazy as config
from d2timm.inference.predictor import load
from d2timm.inference.video import Video, written

Predict = Callable[..., int]

THRESHOLD = ["--score-threshold", "0.15"]  # the tiny run is unsure of everything


@pytest.fixture
def predict(tiny_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Predict:
    """The script, run in a folder of its own on the tiny run: arguments -> exit code."""
    script = commands.load("predict")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, run: Path = tiny_run) -> int:
        given = ["predict", "--run", str(run), "--device", "cpu", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", given)
        code: int = script.main()
        return code

    return run


@pytest.fixture
def photos(small_coco: Any, tmp_path: Path) -> Path:
    """Two folders with files of the same name, a broken one, and one that is none."""
    root = tmp_path / "photos"
    for folder, name in (("a", "0.png"), ("b", "1.png")):
        (root / folder).mkdir(parents=True)
        shutil.copy(small_coco.val_images / name, root / folder / "same.png")
    (root / "b" / "notes.txt").write_text("none")
    return root


def found_in(folder: str | Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((Path(folder) / "predictions.json").read_text())
    return told


def files_in(folder: str | Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def test_folders_are_kept(predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("photos", "--output", "out", "--batch-size", "2", *THRESHOLD) == 0
    assert files_in("out") == ["a/same.jpg", "b/same.jpg", "predictions.json"]
    told = found_in("out")
    assert [(image["id"], image["file_name"]) for image in told["images"]] == [
        (1, "a/same.png"),
        (2, "b/same.png"),
    ]
    assert told["info"]["image_root"] == str(photos)
    assert [c["id"] for c in told["categories"]] == [1, 2, 3, 4]
    number = len(told["annotations"])
    assert number > 0
    assert {a["image_id"] for a in told["annotations"]} == {1, 2}
    out, err = capsys.readouterr()
    assert out.startswith(f"2 images, {number} detections, ")
    assert out.endswith(" s: out/predictions.json\n")
    assert err == ""
    picture = cv2.imread("out/a/same.jpg")
    assert picture.shape == (400, 480, 3), "5 times 80 x 96"
    plain = cv2.resize(cv2.imread(str(photos / "a" / "same.png")), (480, 400))
    assert np.abs(picture.astype(int) - plain).mean() > 10


def test_same_command_again_replaces_its_results(predict: Predict, photos: Path) -> None:
    command = ["photos/**/*.png", "--output", "photos/out"]
    assert predict(*command) == 0
    first = found_in("photos/out")
    assert predict(*command) == 0
    assert found_in("photos/out") == first
    assert files_in("photos/out") == ["a/same.jpg", "b/same.jpg", "predictions.json"]
    assert predict("photos", "--output", "photos/out") == 0
    assert len(found_in("photos/out")["images"]) == 2, "results are no inputs"


def test_detections_are_those_of_the_predictor(predict: Predict, photos: Path, tiny_run: Path) -> None:
    assert predict("photos/a/same.png", "--output", "out", "--no-pictures", *THRESHOLD) == 0
    assert files_in("out") == ["predictions.json"]
    told, predictor = found_in("out"), load(tiny_run, device="cpu", score_threshold=0.15)
    expected = predictor(photos / "a" / "same.png")
    assert [a["score"] for a in told["annotations"]] == expected.scores.tolist()
    names = {c["id"]: c["name"] for c in told["categories"]}
    assert [names[a["category_id"]] for a in told["annotations"]] == [
        predictor.class_names[i] for i in expected.pred_classes
    ]


def test_evaluation_of_the_json_is_that_of_the_run(predict: Predict, small_coco: Any, tiny_run: Path) -> None:
    options = ["--no-pictures", "--ids-from", str(small_coco.val_json), "--score-threshold", "0.05"]
    assert predict(small_coco.val_images, "--output", "out", *options) == 0
    truth = COCO(str(small_coco.val_json))
    expected = json.loads((tiny_run / "result.json").read_text())["metrics"]["bbox"]
    evaluation = COCOeval_faster(truth, truth.loadRes(found_in("out")["annotations"]), "bbox")
    evaluation.run()
    for place, name in ((0, "AP"), (1, "AP50"), (8, "AR100")):
        assert 100 * evaluation.stats[place] == pytest.approx(expected[name], abs=1e-6)
    assert expected["AP"] > 0


def test_broken_files_do_not_stop_the_others(
    predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a" / "broken.jpg").write_bytes((photos / "a" / "same.png").read_bytes()[:100])
    (photos / "a" / "broken.mp4").write_text("none")
    assert predict("photos", "--output", "out", "--batch-size", "2") == 1
    assert files_in("out") == ["a/same.jpg", "b/same.jpg", "predictions.json"]
    out, err = capsys.readouterr()
    assert "2 could not be read: " in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"error: {photos / 'a' / 'broken.jpg'}: cannot be read as an image: ")
    assert lines[1].startswith(f"error: {photos / 'a' / 'broken.mp4'}: no video that can be read")


def test_videos(predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = cv2.resize(cv2.imread(str(photos / "a" / "same.png")), (64, 64))[..., ::-1]
    with written(photos / "clip.mp4", 12.5) as write:
        for shift in range(5):
            write(np.roll(still, 3 * shift, axis=1))
    assert predict("photos/clip.mp4", "photos/a", "--output", "out", "--batch-size", "2", *THRESHOLD) == 0
    assert files_in("out") == ["a/same.jpg", "clip.mp4", "predictions.json"]
    video = Video(Path("out/clip.mp4"))
    frames = list(video)
    assert (video.fps, len(frames), frames[0].shape) == (12.5, 5, (64, 64, 3))
    given = list(Video(photos / "clip.mp4"))
    assert all(np.abs(x.astype(int) - y).mean() > 5 for x, y in zip(frames, given, strict=True))
    told = found_in("out")
    assert told["videos"] == [{"id": 1, "name": "clip.mp4", "fps": 12.5}]
    assert [image["file_name"] for image in told["images"]] == [
        *(f"clip.mp4#{i}" for i in range(5)),
        "a/same.png",
    ]
    assert capsys.readouterr().out.startswith("1 image, 5 frames, ")


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """An exported file of a detector with attention."""
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
    sheets = ["same.attention.png", "same.features.png"]
    assert files_in("out") == ["predictions.json", *sheets[:1], sheets[1], "same.jpg"]
    for sheet in sheets:
        assert cv2.imread(f"out/{sheet}").std() > 10
    assert capsys.readouterr().out.count("\n") == 1


def test_model_without_attention_has_no_sheet_of_it(
    predict: Predict, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("photos", "--output", "out", "--features", "--no-pictures") == 0
    assert files_in("out") == ["a/same.features.png", "b/same.features.png", "predictions.json"]
    assert capsys.readouterr().out.startswith(
        "attention: this backbone has none that timm's hooks find\n2 images, "
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no.jpg"], "no.jpg: no such file or folder"),
        (["photos/*.bmp"], "photos/*.bmp: no images or videos there"),
        (["photos", "--output", "photos"], "holds the images themselves"),
        (["photos", "--output", "full"], "--output full holds files, and no predictions.json"),
        (["photos", "--output", "full/file"], "--output full/file: Not a directory"),
        (["photos", "--output", "full/file/x"], "--output full/file/x: Not a directory"),
        (["photos", "--score-threshold", "50"], "score_threshold=50.0: a score is 0 to 1"),
        (["photos", "--batch-size", "0"], "batch_size=0"),
        (["photos", "--weights", "no.pth"], "no.pth: no such file"),
        (["photos", "--run", "photos"], "photos is not the folder of a run"),
        (["photos", "--ids-from", "full/file"], "full/file"),
    ],
)
def test_mistakes_are_told_in_a_line(
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


def test_what_was_found_before_an_interrupt_is_kept(
    predict: Predict, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(file: Path, picture: Any) -> None:
        if "b" in file.parts:
            raise KeyboardInterrupt

    monkeypatch.setattr("d2timm.inference.predict.write_picture", interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict("photos", "--output", "out")
    assert [image["file_name"] for image in found_in("out")["images"]] == ["a/same.png", "b/same.png"]


def test_help_waits_for_no_import() -> None:
    script = commands.SCRIPTS / "predict.py"
    command = [sys.executable, "-X", "importtime", script, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--features" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "timm", "d2timm", "cv2"} & imported
