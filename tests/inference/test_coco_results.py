"""predictions.json: COCO's tools load it and compare it with ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2timm import ConfigError
from d2timm.inference.coco_results import CocoIds, CocoResults

SIZE = (40, 60)
LABELS = {"classes": ["boat", "buoy"], "stuff": [], "keypoints": []}
BOXES = [(10.0, 5.0, 30.0, 25.0), (40.0, 20.0, 50.0, 35.0)]


def instances(*parts: str) -> Instances:
    """A buoy and a boat."""
    detections = Instances(SIZE, pred_boxes=Boxes(torch.tensor(BOXES)), scores=torch.tensor([0.9, 0.6]))
    detections.pred_classes = torch.tensor([1, 0])
    if "masks" in parts:
        detections.pred_masks = torch.zeros(2, *SIZE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(detections.pred_masks, BOXES, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    if "keypoints" in parts:
        detections.pred_keypoints = torch.tensor([[[12.5, 7.5, 0.8], [20.5, 9.5, 0.7]]] * 2)
    return detections


def write_and_load(results: CocoResults, folder: Path) -> COCO:
    results.write(folder / "predictions.json")
    return COCO(str(folder / "predictions.json"))


@pytest.mark.parametrize("parts", [(), ("masks",), ("masks", "keypoints")])
def test_coco_loads_objects(parts: tuple[str, ...], tmp_path: Path) -> None:
    labels = {**LABELS, "keypoints": ["bow", "stern"] if "keypoints" in parts else []}
    results = CocoResults(labels, CocoIds(), {"run": "here"})
    assert results.add("a/1.jpg", SIZE, {"instances": instances(*parts)}) == 2
    assert results.add("2.jpg", SIZE, {"instances": instances(*parts)[:0]}) == 0
    coco = write_and_load(results, tmp_path)
    assert coco.dataset["info"] == {"run": "here"}
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == ["a/1.jpg", "2.jpg"]
    assert [(c["id"], c["name"]) for c in coco.dataset["categories"]] == [(1, "boat"), (2, "buoy")]
    buoy, boat = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert (buoy["id"], buoy["category_id"], buoy["bbox"], buoy["area"]) == (1, 2, [10, 5, 20, 20], 400)
    assert (boat["category_id"], boat["bbox"], boat["area"]) == (1, [40, 20, 10, 15], 150)
    assert buoy["score"] == pytest.approx(0.9)
    assert coco.getAnnIds(imgIds=2) == []
    if "masks" in parts:
        assert np.array_equal(coco.annToMask(boat), instances("masks").pred_masks[1].numpy())
    if "keypoints" in parts:
        assert boat["keypoints"] == pytest.approx([12, 7, 0.8, 20, 9, 0.7])
        assert boat["num_keypoints"] == 2
        assert coco.dataset["categories"][0]["keypoints"] == ["bow", "stern"]


def test_keypoints_are_not_changed_in_place() -> None:
    detections = instances("keypoints")
    results = CocoResults({**LABELS, "keypoints": ["bow", "stern"]}, CocoIds(), {})
    results.add("x", SIZE, {"instances": detections})
    assert torch.equal(detections.pred_keypoints, instances("keypoints").pred_keypoints)


# Ids from a COCO file


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """A COCO file whose annotations equal the detections above."""
    images = [{"id": 70, "file_name": "sea/1.jpg"}, {"id": 9, "file_name": "2.jpg"}]
    coco = {
        "images": [{**image, "height": SIZE[0], "width": SIZE[1]} for image in images],
        "categories": [{"id": 30, "name": "buoy"}, {"id": 4, "name": "boat"}, {"id": 5, "name": "net"}],
        "annotations": [
            {
                **{"id": i + 1, "image_id": 70, "category_id": c, "iscrowd": 0},
                **{"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)},
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }
            for i, (c, (x0, y0, x1, y1)) in enumerate(zip((30, 4), BOXES, strict=True))
        ],
    }
    file = tmp_path / "val.json"
    file.write_text(json.dumps(coco))
    return file


@pytest.mark.parametrize("name", ["sea/1.jpg", "1.jpg", "elsewhere/1.jpg"])
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_evaluation_matches_detections_with_annotations(
    name: str, task: str, annotations: Path, tmp_path: Path
) -> None:
    results = CocoResults(LABELS, CocoIds(annotations), {})
    results.add(name, SIZE, {"instances": instances("masks")})
    results.write(tmp_path / "predictions.json")
    coco = COCO(str(annotations))
    detections = coco.loadRes(json.loads((tmp_path / "predictions.json").read_text())["annotations"])
    evaluation = COCOeval(coco, detections, task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_images_that_the_file_does_not_list_get_new_ids(annotations: Path) -> None:
    ids = CocoIds(annotations)
    assert [ids.image_id(name) for name in ("2.jpg", "3.jpg", "other/2.jpg", "1.jpg")] == [9, 71, 72, 70]
    assert ids.unlisted == 2


def test_class_that_the_file_does_not_list_is_an_error(annotations: Path) -> None:
    labels = {**LABELS, "classes": ["boat", "whale"]}
    with pytest.raises(ConfigError, match=r"val\.json .*'whale'"):
        CocoResults(labels, CocoIds(annotations), {})
    with pytest.raises(ConfigError, match=r"no\.json"):
        CocoIds(annotations.with_name("no.json"))


# Regions


def regions() -> dict[str, Any]:
    """An output of Panoptic FPN: the sea above a buoy."""
    segments = torch.zeros(SIZE, dtype=torch.int32)
    segments[:10], segments[20:30, 5:25] = 2, 1
    infos = [
        {"id": 1, "isthing": True, "score": 0.8, "category_id": 1, "instance_id": 0},
        {"id": 2, "isthing": False, "category_id": 2, "area": 600},
    ]
    logits = torch.zeros(4, *SIZE)
    logits[3, :10], logits[1, 10:] = 1, 1
    return {"panoptic_seg": (segments, infos), "sem_seg": logits, "instances": instances("masks")}


def test_segments_of_a_panoptic_map(tmp_path: Path) -> None:
    results = CocoResults({**LABELS, "stuff": ["sky", "sea"]}, CocoIds(), {})
    assert results.add("x", SIZE, regions()) == 2
    coco = write_and_load(results, tmp_path)
    categories = [(c["id"], c["name"], c["isthing"]) for c in coco.dataset["categories"]]
    assert categories == [(1, "boat", 1), (2, "buoy", 1), (3, "sky", 0), (4, "sea", 0)]
    buoy, sea = coco.loadAnns([1, 2])
    assert (buoy["category_id"], buoy["bbox"], buoy["area"]) == (2, [5, 20, 20, 10], 200)
    assert buoy["score"] == 0.8
    assert (sea["category_id"], sea["bbox"], "score" in sea) == (4, [0, 0, 60, 10], False)
    assert coco.annToMask(sea)[:10].all()
    assert coco.annToMask(sea).sum() == 600


def test_regions_of_a_semantic_map(tmp_path: Path) -> None:
    results = CocoResults({**LABELS, "stuff": ["sky", "sea"]}, CocoIds(), {})
    assert results.add("x", SIZE, {"sem_seg": regions()["sem_seg"]}) == 2
    loaded = write_and_load(results, tmp_path).loadAnns([1, 2])
    assert [(a["category_id"], a["bbox"]) for a in loaded] == [(2, [0, 10, 60, 30]), (4, [0, 0, 60, 10])]


def test_frames_name_their_video(tmp_path: Path) -> None:
    results = CocoResults(LABELS, CocoIds(), {})
    video = results.add_video("clip.mp4", 12.5)
    for number in range(2):
        results.add(f"clip.mp4#{number}", SIZE, {"instances": instances()}, video_id=video, frame_id=number)
    coco = write_and_load(results, tmp_path)
    assert coco.dataset["videos"] == [{"id": 1, "name": "clip.mp4", "fps": 12.5}]
    assert [(i["id"], i["video_id"], i["frame_id"]) for i in coco.loadImgs([1, 2])] == [(1, 1, 0), (2, 1, 1)]
