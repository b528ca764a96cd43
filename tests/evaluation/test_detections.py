"""Detections are kept as they are, and masks are encoded by a thread that ends with the evaluation."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from d2timm.evaluation import detections
from d2timm.evaluation.detections import DetectionStream, rows, run_lengths, write_results
from d2timm.evaluation.roi_masks import set_masks_aside

SIZE = (60, 80)  # (H, W)
IDS = [7, 9, 12]  # of the classes


def instances(count: int, seed: int = 0, *, keypoints: bool = False, masks: bool = True) -> Instances:
    """What a detector finds, before its masks are pasted."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator).mul(30).add(torch.tensor([0, 0, 35, 25]))
    found = Instances(
        SIZE,
        pred_boxes=Boxes(corners),
        scores=torch.rand(count, generator=generator),
        pred_classes=torch.randint(3, (count,), generator=generator),
    )
    if masks:
        found.pred_masks = torch.rand(count, 1, 14, 14, generator=generator)
    if keypoints:
        found.pred_keypoints = torch.rand(count, 5, 3, generator=generator) * 40
    return found


def aside(found: Instances) -> Instances:
    set_masks_aside(found)
    return detector_postprocess(found, *SIZE)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("masks")]


@pytest.fixture
def stream() -> Iterator[DetectionStream]:
    stream = DetectionStream()
    yield stream
    stream.close()
    assert threads() == []


@pytest.mark.parametrize("keypoints", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_file_equals_that_of_detectron2(
    stream: DetectionStream, keypoints: bool, masks: bool, tmp_path: Path
) -> None:
    counts = [3, 0, 12, 1, 0, 5, 4, 4, 4]
    expected = []
    for image, count in enumerate(counts):
        options = {"keypoints": keypoints, "masks": masks}
        stream.add(image, aside(instances(count, image, **options)))
        pasted = detector_postprocess(instances(count, image, **options), *SIZE)
        for result in instances_to_coco_json(pasted, image):
            expected.append({**result, "category_id": IDS[result["category_id"]], "image_id": f"id {image}"})
    write_results(tmp_path / "results.json", stream.finish(), lambda image: f"id {image}", IDS)
    assert (tmp_path / "results.json").read_text() == json.dumps(expected)


def test_pasted_masks_give_the_same(stream: DetectionStream) -> None:
    stream.add(0, aside(instances(6)))
    stream.add(1, detector_postprocess(instances(6), *SIZE))
    unpasted, pasted = stream.finish()
    assert unpasted.masks == pasted.masks
    assert unpasted.masks is not None


def test_masks_that_are_not_probabilities_are_pasted(stream: DetectionStream) -> None:
    odd = []
    for _ in range(2):
        found = instances(4)
        found.pred_masks[0, 0, 3, 3:5] = torch.tensor([torch.nan, 1.5])
        odd.append(found)
    stream.add(0, aside(odd[0]))
    stream.add(1, detector_postprocess(odd[1], *SIZE))
    unpasted, pasted = stream.finish()
    assert unpasted.masks == pasted.masks


def test_detections_do_not_change_with_the_model_s_tensors(stream: DetectionStream) -> None:
    found = aside(instances(5, keypoints=True))
    stream.add(3, found)
    before = stream.finish()[0].results(3, IDS)
    found.scores.zero_()
    found.pred_boxes.tensor.zero_()
    found.pred_keypoints.zero_()
    assert stream.finish()[0].results(3, IDS) == before


def test_columns(stream: DetectionStream) -> None:
    for image, count in ((4, 2), (2, 0), (9, 3)):
        stream.add(image, aside(instances(count, image)))
    images = stream.finish()
    table = rows(images, {4: 40, 2: 20, 9: 90}, IDS)
    results = [r for image in images for r in image.results(10 * image.image_id, IDS)]
    expected = [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in results]
    assert table.tolist() == expected
    assert [m["counts"].decode() for m in run_lengths(images)] == [
        r["segmentation"]["counts"] for r in results
    ]


def test_no_detections() -> None:
    assert rows([], {}, IDS).shape == (0, 7)
    stream = DetectionStream()
    stream.add(1, Instances(SIZE, pred_boxes=Boxes(torch.zeros(0, 4))))  # other fields may lack
    assert rows(stream.finish(), {1: 1}, IDS).shape == (0, 7)


def test_class_that_the_dataset_lacks_is_an_error(stream: DetectionStream) -> None:
    stream.add(1, aside(instances(3)))
    with pytest.raises(IndexError):
        rows(stream.finish(), {1: 1}, IDS[:1])


def test_thread_lives_from_the_first_masks_to_the_end(stream: DetectionStream) -> None:
    stream.add(1, instances(3, masks=False))
    assert threads() == []
    stream.add(2, aside(instances(3)))
    assert len(threads()) == 1
    stream.finish()
    assert threads() == []
    stream.add(3, aside(instances(3)))  # one more image, as when an evaluation is repeated
    assert len(stream.finish()) == 3


def test_error_of_the_thread_is_raised(stream: DetectionStream, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise ValueError("no mask")

    monkeypatch.setattr(detections, "encode_roi_masks", fail)
    for image in range(detections.WAITING):
        stream.add(image, aside(instances(3)))
    with pytest.raises(ValueError, match="no mask"):  # the queue is full
        stream.add(9, aside(instances(3)))
    with pytest.raises(ValueError, match="no mask"):
        stream.finish()
    assert threads() == []


def test_queue_is_bounded(stream: DetectionStream, monkeypatch: pytest.MonkeyPatch) -> None:
    started, go = threading.Semaphore(0), threading.Event()

    def wait(*args: Any) -> list[bytes]:
        started.release()
        go.wait(30)
        return []

    monkeypatch.setattr(detections, "encode_roi_masks", wait)

    def add() -> None:
        for image in range(detections.WAITING + 2):
            stream.add(image, aside(instances(2)))

    adding = threading.Thread(target=add)
    adding.start()
    assert started.acquire(timeout=30)
    adding.join(0.2)
    assert adding.is_alive(), "it waits for the thread that encodes"
    assert len(stream._images) <= detections.WAITING + 1
    go.set()
    adding.join(30)
    assert not adding.is_alive()


def test_close_ends_the_thread_with_work_left(
    stream: DetectionStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detections, "encode_roi_masks", lambda *args: time.sleep(0.01))
    for image in range(detections.WAITING):
        stream.add(image, aside(instances(2)))
    stream.close()
    assert threads() == []
    stream.close()
