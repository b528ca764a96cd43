"""``d2timm.load``: images in any form in, the detections of evaluation out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from helpers.choices import compose
from PIL import Image
from safetensors.torch import save_file

from d2timm import ConfigError
from d2timm.config import lazy as config
from d2timm.config.build import build_model, instantiate, resolve_dataset
from d2timm.inference.predictor import Predictor, load
from d2timm.inference.trained import Trained

PAGE = Path(__file__).parents[2] / "README.md"
LABELS = {"classes": ["a", "b", "c", "d"], "stuff": ["sky"], "keypoints": []}


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    """A predictor for the tiny run, whose scores are all low."""
    return load(tiny_run, device="cpu")


@pytest.fixture
def photos(small_coco: Any) -> list[Path]:
    """Images of three sizes."""
    return sorted(small_coco.val_images.glob("*.png"))


def untrained(choice: str, *overrides: str, **options: Any) -> Predictor:
    """A predictor with random weights for a choice ``model neck roi_heads``."""
    torch.manual_seed(0)
    cfg = compose(*choice.split(), *overrides)
    cfg.data.labels = LABELS
    return Predictor(Trained(cfg, build_model(cfg).eval(), Path("untrained.pth")), **options)


def same(first: Instances, second: Instances) -> bool:
    fields = first.get_fields()
    assert fields.keys() == second.get_fields().keys()
    pairs = [
        (getattr(v, "tensor", v), getattr(second.get(k), "tensor", second.get(k))) for k, v in fields.items()
    ]
    return first.image_size == second.image_size and all(torch.equal(a, b) for a, b in pairs)


def test_detections_equal_those_of_evaluation(predictor: Predictor, tiny_run: Path) -> None:
    cfg = config.load(tiny_run / "config.yaml")
    resolve_dataset(cfg)
    with torch.no_grad():
        for inputs in instantiate(cfg.dataloader.test):
            expected = predictor.model(inputs)[0]["instances"]
            detections = predictor(inputs[0]["file_name"])
            assert len(detections) == 10
            assert detections.has("pred_masks")
            assert same(detections, expected)


def test_ways_to_compute_change_no_detection(
    tiny_run: Path, predictor: Predictor, photos: list[Path]
) -> None:
    other = load(tiny_run, device="cpu", channels_last=True)
    for photo in photos:
        expected, detections = predictor(photo), other(photo)
        torch.testing.assert_close(
            detections.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-3, atol=1e-2
        )
        torch.testing.assert_close(detections.scores, expected.scores, rtol=1e-3, atol=1e-4)


def test_missing_compiler_is_named(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"compile=True: .*no-such-compiler"):
        load(tiny_run, device="cpu", compile=True)


def test_one_image_or_several(predictor: Predictor, photos: list[Path]) -> None:
    alone = [predictor(photo) for photo in photos]
    assert [detections.image_size for detections in alone] == [(80, 96), (64, 64), (96, 72)]
    together = predictor(photos)
    assert isinstance(together, list)
    for several in (together, predictor(iter(photos))):
        assert all(same(x, y) for x, y in zip(alone, several, strict=True))
    assert predictor([]) == []


def test_all_forms_of_an_image_give_the_same_detections(predictor: Predictor, photos: list[Path]) -> None:
    pixels = np.array(Image.open(photos[0]).convert("RGB"))
    forms = [str(photos[0]), Image.open(photos[0]), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    expected = predictor(photos[0])
    for form in forms:
        assert same(predictor(form), expected)
    assert not same(predictor(pixels[..., ::-1]), expected), "the order of channels matters"


def test_a_batch_may_hold_images_of_different_sizes(
    tiny_run: Path, predictor: Predictor, photos: list[Path]
) -> None:
    batches: list[int] = []
    batched = load(tiny_run, device="cpu", batch_size=2)
    batched.model.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    detections = batched(photos)
    assert batches == [2, 1]
    assert [x.image_size for x in detections] == [(80, 96), (64, 64), (96, 72)]
    assert same(detections[2], predictor(photos[2])), "the last image is alone in its batch"
    assert [len(x.pred_masks[0]) for x in detections] == [80, 64, 96]


def test_outputs_are_lazy(predictor: Predictor, photos: list[Path]) -> None:
    def endless() -> Any:
        while True:
            yield photos[0]

    outputs = predictor.outputs(endless())
    assert same(next(outputs)["instances"], next(outputs)["instances"])


@pytest.mark.parametrize(
    "choice", ["rcnn fpn mask", "rcnn fpn cascade_box", "retinanet fpn_p6p7 none", "fcos fpn_p6p7 none"]
)
def test_score_threshold_replaces_that_of_the_detector(choice: str, photos: list[Path]) -> None:
    lower = untrained(choice, score_threshold=0.0)
    own = Predictor(lower.trained)
    scores = lower(photos[0]).scores
    assert len(scores) > 1
    middle = float(scores.sort().values[len(scores) // 2])
    higher = Predictor(lower.trained, score_threshold=middle)
    assert len(higher(photos[0])) == int((scores > middle).sum()) < len(scores)
    unlikely = Predictor(lower.trained, score_threshold=1.0)
    before = own(photos[0])
    assert len(unlikely(photos[0])) == 0
    assert same(own(photos[0]), before), "the detector itself is unchanged"


def test_detector_keeps_its_threshold_after_an_error(predictor: Predictor) -> None:
    high = Predictor(predictor.trained, score_threshold=0.9)
    heads = predictor.model.roi_heads.box_predictor
    with pytest.raises(ConfigError, match="cannot predict: KeyError: 'image'"):
        high.run([{}])
    assert heads.test_score_thresh == 0.05


def test_names_of_classes_and_tasks(predictor: Predictor) -> None:
    assert predictor.class_names == predictor.labels["classes"]
    assert sorted(predictor.class_names) == ["circle", "square", "star", "triangle"]
    assert predictor.tasks == ["bbox", "segm"]


def test_panoptic_detectors_return_objects_and_segments(photos: list[Path]) -> None:
    predictor = untrained("panoptic_fpn fpn mask", score_threshold=0.0)
    assert isinstance(predictor(photos[0]), Instances)
    (output,) = predictor.outputs(photos[:1])
    segments, infos = output["panoptic_seg"]
    assert segments.shape == (80, 96)
    assert any(info["isthing"] for info in infos), "the threshold applies to the map as well"
    assert output["sem_seg"].shape == (2, 80, 96)


def test_semantic_detectors_only_have_outputs(photos: list[Path]) -> None:
    predictor = untrained("semantic_fpn fpn none")
    with pytest.raises(ConfigError, match=r"SemanticSegmentor .*predictor\.outputs"):
        predictor(photos[0])
    outputs = list(predictor.outputs(photos))
    assert [tuple(output["sem_seg"].shape) for output in outputs] == [(5, 80, 96), (5, 64, 64), (5, 96, 72)]


def test_grey_detectors_take_coloured_images(photos: list[Path]) -> None:
    predictor = untrained("rcnn fpn box", "model.backbone.bottom_up.in_chans=1", score_threshold=0.0)
    assert predictor.prepare(photos[0])["image"].shape[0] == 1
    grey = np.array(Image.open(photos[0]).convert("L"))
    assert same(predictor(photos[0]), predictor(grey))


def test_exported_weights_are_loaded(predictor: Predictor, tmp_path: Path, photos: list[Path]) -> None:
    trained = predictor.trained
    metadata = {"config": config.to_yaml(trained.cfg), "labels": json.dumps(trained.labels)}
    save_file(trained.model.state_dict(), tmp_path / "merged.safetensors", metadata)
    merged = load(tmp_path / "merged.safetensors", device="cpu")
    assert merged.class_names == predictor.class_names
    assert same(merged(photos[0]), predictor(photos[0]))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"score_threshold": 1.5}, "score_threshold=1.5"),
        ({"score_threshold": float("nan")}, "score_threshold=nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"weights": "no.pth"}, "no.pth: no such file"),
    ],
)
def test_invalid_options_are_an_error(options: dict[str, Any], reason: str, tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(tiny_run, device="cpu", **options)


def test_image_that_cannot_be_resized_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match="4000x1 pixels"):
        predictor(np.zeros((1, 4000, 3), np.uint8))
    assert predictor(np.zeros((1, 1, 3), np.uint8)).image_size == (1, 1)


def test_example_in_the_readme_runs(
    tiny_run: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (lines,) = [block for block in blocks if "d2timm.load(" in block]
    assert len([line for line in lines.splitlines() if line]) == 5
    for example, actual in (("output/demo", tiny_run), ("photo.jpg", photos[0]), ("=0.5", "=0.1")):
        assert example in lines
        lines = lines.replace(example, str(actual))
    exec(compile(lines, str(PAGE), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    detections = load(tiny_run, score_threshold=0.1)(photos[0])
    assert len(printed) == len(detections) > 0
    assert re.fullmatch(r"(circle|square|star|triangle) 0\.\d\d", printed[0])
