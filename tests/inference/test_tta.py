"""Test-time augmentation: several views of an image, merged into one output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.meta_arch import FCOS, PanopticFPN, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from omegaconf import open_dict
from torch import Tensor, nn

from d2timm import get_config
from d2timm.config.build import resolve_dataset
from d2timm.config.overrides import apply_overrides
from d2timm.errors import ConfigError
from d2timm.inference.tta import Views, tta_of, with_tta, with_tta_results

HEIGHT, WIDTH = 60, 100
SIZES: dict[str, Any] = {"short_edge": 30, "max_size": 60, "image_format": "RGB"}
BOXES = torch.tensor([[10.0, 6.0, 40.0, 30.0], [60.0, 30.0, 100.0, 54.0], [61.0, 30.0, 99.0, 54.0]])
CLASSES = torch.tensor([0, 1, 2])  # the last two boxes nearly coincide
SCORES = torch.tensor([0.9, 0.8, 0.7])

Entry = dict[str, Any]


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """An image whose left half is white, so that its mirror image differs."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2] = 255
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    return {"file_name": str(tmp_path / "image.png"), "height": HEIGHT, "width": WIDTH}


def is_mirrored(image: Tensor) -> bool:
    half = image.shape[2] // 2
    return bool(image[:, :, :half].float().mean() < image[:, :, half:].float().mean())


def boxes_in(image: Tensor, count: int) -> Instances:
    """The same objects, at the image's size and mirrored if the image is."""
    height, width = image.shape[1:]
    boxes = BOXES[:count] / torch.tensor([WIDTH, HEIGHT] * 2) * torch.tensor([width, height] * 2)
    if is_mirrored(image):
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return Instances(
        (height, width), pred_boxes=Boxes(boxes), scores=SCORES[:count], pred_classes=CLASSES[:count]
    )


class Dense(DenseDetector):
    """Detects the objects in any view."""

    def __init__(self, count: int = 3) -> None:
        nn.Module.__init__(self)
        self.count, self.sizes = count, list[tuple[int, ...]]()
        self.test_nms_thresh, self.max_detections_per_image = 0.5, 10

    def forward(self, batched_inputs: Sequence[Entry]) -> list[dict[str, Any]]:
        self.sizes += [tuple(x["image"].shape[1:]) for x in batched_inputs]
        detections = [boxes_in(x["image"], self.count) for x in batched_inputs]
        return [
            {"instances": detector_postprocess(instances, x["height"], x["width"])}
            for instances, x in zip(detections, batched_inputs, strict=True)
        ]


class RCNN(GeneralizedRCNN):
    """Detects the objects in any view; each mask is the left half of its box."""

    def __init__(self, count: int = 3, **heads: Any) -> None:
        nn.Module.__init__(self)
        self.count = count
        predictor = SimpleNamespace(test_nms_thresh=0.5, test_topk_per_image=10)
        self.roi_heads = SimpleNamespace(num_classes=3, mask_on=True, box_predictor=predictor)
        vars(self.roi_heads).update(heads)
        self.proposal_generator, self.input_format = nn.Identity(), "RGB"

    def inference(
        self, batched_inputs: Any, detected_instances: Any = None, do_postprocess: bool = True
    ) -> list[Instances]:
        assert not do_postprocess
        if detected_instances is None:
            return [boxes_in(x["image"], self.count) for x in batched_inputs]
        for x, instances in zip(batched_inputs, detected_instances, strict=True):
            masks = torch.zeros(len(instances), 1, 8, 8)
            masks[..., :4] = 1
            instances.pred_masks = masks.flip(-1) if is_mirrored(x["image"]) else masks
        return list(detected_instances)


class Segmentor(SemanticSegmentor):
    """Predicts class 1 for bright pixels."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, batched_inputs: Sequence[Entry]) -> list[dict[str, Tensor]]:
        bright = [x["image"][0].float() / 255 - 0.5 for x in batched_inputs]
        return [
            {"sem_seg": sem_seg_postprocess(torch.stack([-x, x]), x.shape, inputs["height"], inputs["width"])}
            for x, inputs in zip(bright, batched_inputs, strict=True)
        ]


def run_with_tta(model: nn.Module, entry: Entry, **options: Any) -> Any:
    with torch.no_grad():
        (output,) = with_tta(model.eval(), **SIZES, **options)([entry])
    return output


def check_boxes(instances: Instances) -> None:
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.pred_classes.tolist() == CLASSES.tolist()
    torch.testing.assert_close(instances.scores, SCORES)
    torch.testing.assert_close(instances.pred_boxes.tensor, BOXES, rtol=0, atol=1e-3)


# Views


def test_views_have_all_scales_and_are_mirrored(entry: Entry) -> None:
    views = Views([(30, 60), (60, 80)], flip=True, image_format="RGB")(entry)
    # the second one is limited by its long side
    assert [tuple(view["image"].shape) for view in views] == [(3, 30, 50)] * 2 + [(3, 48, 80)] * 2
    assert [is_mirrored(view["image"]) for view in views] == [False, True] * 2
    assert all((view["height"], view["width"]) == (HEIGHT, WIDTH) for view in views)
    assert len(Views([(30, 60)], flip=False, image_format="RGB")(entry)) == 1


def test_view_is_resized_only_once_from_the_file(entry: Entry) -> None:
    augmentations = [T.ResizeShortestEdge(45, 100)]
    loaded = DatasetMapper(is_train=False, augmentations=augmentations, image_format="RGB")(entry)
    once = Views([(45, 100)], flip=False, image_format="RGB")
    assert torch.equal(once({**entry, "image": torch.zeros(3, 6, 10)})[0]["image"], loaded["image"])


def test_image_without_a_file_is_augmented(entry: Entry) -> None:
    image = torch.from_numpy(cv2.imread(entry.pop("file_name"))).permute(2, 0, 1)
    small = {**entry, "image": image[:, ::2, ::2]}
    for dataset_dict in (small, {**entry, "image": image}):
        (view,) = Views([(45, 100)], flip=False, image_format="RGB")(dataset_dict)
        assert tuple(view["image"].shape) == (3, 45, 75)
        moved = view["transforms"].apply_box(BOXES.numpy())
        np.testing.assert_allclose(moved, 0.75 * BOXES.numpy(), rtol=1e-5)
    check_boxes(run_with_tta(Dense(), small)["instances"])


# Outputs of detectors that detect the same objects in every view


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [[1.0], [0.5, 1.0, 1.7]])
@pytest.mark.parametrize("kind", [Dense, RCNN])
def test_boxes_are_mapped_back_from_every_view(
    kind: Any, scales: list[float], flip: bool, entry: Entry
) -> None:
    check_boxes(run_with_tta(kind(), entry, scales=scales, flip=flip)["instances"])


def test_views_are_batched(entry: Entry) -> None:
    model = Dense()
    batches: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    run_with_tta(model, entry, scales=[0.5, 1], batch_size=3)
    assert model.sizes == [(15, 25)] * 2 + [(30, 50)] * 2
    assert batches == [3, 1]


@pytest.mark.parametrize("flip", [False, True])
def test_masks_are_mirrored_back(flip: bool, entry: Entry) -> None:
    instances = run_with_tta(RCNN(), entry, flip=flip)["instances"]
    for mask, (x0, y0, x1, y1) in zip(instances.pred_masks, BOXES.int().tolist(), strict=True):
        middle = (x0 + x1) // 2
        assert mask[y0 + 2 : y1 - 2, x0 + 2 : middle - 3].all()
        assert not mask[:, middle + 3 :].any()


def test_number_of_detections_is_limited_by_the_detector(entry: Entry) -> None:
    model = Dense()
    model.max_detections_per_image = 2
    assert run_with_tta(model, entry)["instances"].pred_classes.tolist() == [0, 1]
    model.max_detections_per_image = 10
    model.test_nms_thresh = 1.0  # nothing is suppressed
    assert len(run_with_tta(model, entry)["instances"]) > 3


@pytest.mark.parametrize("kind", [Dense, RCNN])
def test_image_without_detections(kind: Any, entry: Entry) -> None:
    assert len(run_with_tta(kind(0), entry)["instances"]) == 0


def test_pixel_probabilities_are_averaged(entry: Entry) -> None:
    logits = run_with_tta(Segmentor(), entry)["sem_seg"]
    assert logits.shape == (2, HEIGHT, WIDTH)
    classes = logits.argmax(0)
    assert (classes[:, : WIDTH // 2 - 4] == 1).all()
    assert (classes[:, WIDTH // 2 + 4 :] == 0).all()
    apart = [
        run_with_tta(Segmentor(), entry, scales=[scale], flip=False)["sem_seg"].softmax(0)
        for scale in (0.3, 1.0, 1.5)
    ]
    assert not torch.allclose(apart[0], apart[2], atol=0.01)
    together = run_with_tta(Segmentor(), entry, scales=[0.3, 1.0, 1.5], flip=False)["sem_seg"].softmax(0)
    torch.testing.assert_close(together, sum(apart) / 3)


# Real detectors


@pytest.fixture
def tiny(tiny_overrides: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Any]:
    """A recipe made tiny by the overrides that apply to it."""

    def compose(recipe: str, *more: str) -> Any:
        cfg = get_config(recipe)
        absent = () if "proposal_generator" in cfg.model else ("model.proposal_generator", "model.roi_heads")
        overrides = tiny_overrides(recipe, tmp_path, *more)
        cfg = apply_overrides(cfg, [override for override in overrides if not override.startswith(absent)])
        resolve_dataset(cfg)
        torch.manual_seed(0)
        return cfg

    return compose


def build(cfg: Any, scales: list[float], flip: bool, model: nn.Module | None = None) -> tuple[Any, Any]:
    """A detector, and the same detector with augmentation."""
    model = model or instantiate(cfg.model)
    with open_dict(cfg):
        cfg.train.tta = {"enabled": True, "scales": scales, "flip": flip}
    return model, tta_of(cfg.train.tta, cfg.dataloader.test.mapper, model.eval())


def run(model: Any, cfg: Any) -> list[dict[str, Any]]:
    """Outputs for the validation images, which differ in size and aspect ratio."""
    mapper = instantiate(cfg.dataloader.test.mapper)
    entries = [mapper(entry) for entry in instantiate(cfg.dataloader.test.dataset)]
    with torch.no_grad():
        together = model(entries)
        assert len(together) == len(entries) == 3
        return [model([entry])[0] for entry in entries]


def retinanet(cfg: Any) -> nn.Module:
    cfg.model.test_score_thresh = 0.0  # untrained
    model: nn.Module = instantiate(cfg.model)
    return model


def fcos(cfg: Any) -> nn.Module:
    backbone = instantiate(cfg.model.backbone)
    shapes = list(backbone.output_shape().values())
    return FCOS(
        backbone=backbone,
        head=FCOSHead(input_shape=shapes, num_classes=4, conv_dims=[16]),
        num_classes=4,
        test_score_thresh=0.0,
        max_detections_per_image=10,
        pixel_mean=[120.0] * 3,
        pixel_std=[60.0] * 3,
    )


@pytest.mark.parametrize("kind", [retinanet, fcos])
def test_one_view_equals_a_dense_detector(kind: Any, tiny: Callable[..., Any]) -> None:
    cfg = tiny("retinanet_timm.py")
    plain, augmented = build(cfg, [1.0], False, kind(cfg))
    for one, other in zip(run(plain, cfg), run(augmented, cfg), strict=True):
        one, other = one["instances"], other["instances"]
        assert len(one) == len(other) > 0
        assert torch.equal(one.pred_classes, other.pred_classes)
        torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor)
    _, augmented = build(cfg, [0.75, 1.5], True, plain)
    for output in run(augmented, cfg):
        scores = output["instances"].scores
        assert 0 < len(scores) <= 10
        assert torch.equal(scores, scores.sort(descending=True).values)


@pytest.mark.parametrize("recipe", ["mask_rcnn_timm.py", "faster_rcnn_timm.py"])
def test_one_view_nearly_equals_an_rcnn(recipe: str, tiny: Callable[..., Any]) -> None:
    cfg = tiny(recipe)
    plain, augmented = build(cfg, [1.0], False)
    for one, other in zip(run(plain, cfg), run(augmented, cfg), strict=True):
        one, other = one["instances"], other["instances"]
        assert len(one) == len(other) > 0
        assert torch.equal(one.pred_classes, other.pred_classes)
        torch.testing.assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor, rtol=0, atol=0.01)
        assert one.has("pred_masks") == other.has("pred_masks") == ("mask" in recipe)
        if one.has("pred_masks"):
            assert (one.pred_masks != other.pred_masks).float().mean() < 0.01
    _, augmented = build(cfg, [0.75, 1.5], True, plain)
    for output in run(augmented, cfg):
        assert 0 < len(output["instances"]) <= 10


def test_rcnn_without_detections(tiny: Callable[..., Any]) -> None:
    cfg = tiny("mask_rcnn_timm.py", "model.roi_heads.box_predictor.test_score_thresh=1.0")
    _, augmented = build(cfg, [1.0], True)
    for output in run(augmented, cfg):
        assert len(output["instances"]) == 0
        assert output["instances"].pred_masks.shape[1:] == output["instances"].image_size


def test_semantic_segmentation(tiny: Callable[..., Any]) -> None:
    cfg = tiny("faster_rcnn_timm.py")
    backbone = instantiate(cfg.model.backbone)
    levels = {k: v for k, v in backbone.output_shape().items() if v.stride <= 32}
    head = SemSegFPNHead(levels, num_classes=5, conv_dims=16, common_stride=4)
    model = SemanticSegmentor(
        backbone=backbone, sem_seg_head=head, pixel_mean=[120.0] * 3, pixel_std=[60.0] * 3
    )
    plain, augmented = build(cfg, [1.0], False, model)
    for one, other in zip(run(plain, cfg), run(augmented, cfg), strict=True):
        torch.testing.assert_close(one["sem_seg"].log_softmax(0), other["sem_seg"])
    _, augmented = build(cfg, [0.75, 1.0], True, model)
    assert [tuple(output["sem_seg"].shape) for output in run(augmented, cfg)] == [
        (5, 80, 96),
        (5, 64, 64),
        (5, 96, 72),
    ]


# Options and unsupported detectors


def test_view_sizes_follow_the_test_mapper(tiny: Callable[..., Any]) -> None:
    cfg = tiny("retinanet_timm.py", "data.settings.custom.test_short_edge=50")
    model = Dense()
    _, augmented = build(cfg, [0.5, 2.0], False, model)
    mapper = instantiate(cfg.dataloader.test.mapper)
    with torch.no_grad():  # 80 x 96 pixels; max_size=64
        augmented([mapper(instantiate(cfg.dataloader.test.dataset)[0])])
    assert model.sizes == [(25, 30), (100, 120)]


def test_settings_come_from_the_last_stage_of_a_cascade(entry: Entry) -> None:
    stages = nn.ModuleList(nn.Identity() for _ in range(2))
    for stage, top in zip(stages, (1, 2), strict=True):
        vars(stage).update(test_nms_thresh=0.5, test_topk_per_image=top)
    assert len(run_with_tta(RCNN(box_predictor=stages), entry)["instances"]) == 2


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_detector_is_kept(training: bool) -> None:
    model = Dense().train(training)
    assert with_tta(model, **SIZES).training == model.training == training


def test_parameters_are_shared_with_the_detector(tiny: Callable[..., Any]) -> None:
    plain, augmented = build(tiny("faster_rcnn_timm.py"), [1.0], False)
    assert {id(p) for p in plain.parameters()} == {id(p) for p in augmented.parameters()}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(1, 1), "Linear is not supported .*GeneralizedRCNN, RetinaNet, FCOS"),
        (type("Both", (PanopticFPN,), {"__init__": nn.Module.__init__})(), "Both is not supported"),
        (RCNN(keypoint_on=True), "keypoints"),
    ],
)
def test_unsupported_detectors_are_refused(model: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        with_tta(model, **SIZES)
    assert "train.tta.enabled=False" in str(error.value)


@pytest.mark.parametrize("scales", [[], [0.0], [1.0, -1.0], ["1.0"], 1.0, None])
def test_invalid_scales_are_an_error(scales: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.tta\.scales=.*factors > 0"):
        with_tta(Dense(), **SIZES, scales=scales)


def test_results_with_augmentation_have_other_names() -> None:
    plain, augmented = {"bbox": {"AP": 1.0}}, {"bbox": {"AP": 2.0}, "segm": {"AP": 3.0}}
    assert with_tta_results(plain, augmented) == {
        "bbox": {"AP": 1.0},
        "bbox_TTA": {"AP": 2.0},
        "segm_TTA": {"AP": 3.0},
    }
