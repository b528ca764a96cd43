"""Every dataset and format is read, trained on and evaluated; its ground truth scores 100 as detections."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import conftest
import hydra
import numpy as np
import pytest
import torch
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, BoxMode, Instances
from helpers import published, tool_exports
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask

from d2timm import get_config
from d2timm.config.build import resolve_dataset
from d2timm.config.groups import read_nodes
from d2timm.config.overrides import apply_overrides
from d2timm.data import catalog
from d2timm.data.datasets.panoptic import read_segments, read_semantic
from d2timm.data.formats import folder_formats
from d2timm.engine.run import start
from d2timm.runs.record import Record
from d2timm.sweep.hydra_groups import store_groups
from d2timm.utils.files import resource_folder

pytestmark = pytest.mark.slow

SMALL = [
    "model.backbone.out_channels=32",
    "model.roi_heads.mask_head.conv_dims=[16,16]",
    "model.roi_heads.keypoint_head.conv_dims=[16]",
    "model.sem_seg_head.conv_dims=32",
]
COCO = ("AP", "AP50", "AP75", "AR100")
PANOPTIC = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")


class Case(NamedTuple):
    """A dataset, a recipe for it, and the metrics of its evaluation."""

    name: str  # data.name
    write: str  # a function of helpers/published.py or helpers/tool_exports.py
    recipe: str
    metrics: dict[str, tuple[str, ...]]
    options: dict[str, Any] = {}  # of the function  # noqa: RUF012
    tolerance: float = 0.01  # difference in pixels between drawn and loaded boxes
    minimum: float = 99.99  # of every metric, for the ground truth as detections


CASES = {
    "coco": Case("coco_2017", "coco", "mask_rcnn", {"bbox": COCO, "segm": COCO}),
    "keypoints": Case(
        "coco_2017_keypoints",
        "coco_keypoints",
        "keypoint_rcnn",
        {"bbox": COCO, "keypoints": ("AP", "AP50", "AP75", "AR")},
    ),
    "panoptic": Case(
        "coco_2017_panoptic",
        "coco",
        "panoptic_fpn",
        {"bbox": COCO, "segm": COCO, "sem_seg": ("mIoU", "pACC"), "panoptic_seg": PANOPTIC},
    ),
    "semantic": Case("coco_2017_panoptic", "coco", "semantic_fpn", {"sem_seg": ("mIoU", "pACC")}),
    "lvis": Case(
        "lvis_v1",
        "lvis",
        "mask_rcnn",
        dict.fromkeys(("bbox", "segm"), ("AP", "AP50", "APr", "APc", "APf", "AR300")),
    ),
    # polygons are dilated by half a pixel and clip others by as much, which matters in small images
    "cityscapes": Case(
        "cityscapes",
        "cityscapes",
        "mask_rcnn",
        {"bbox": COCO, "segm": ("AP", "AP50")},
        tolerance=1.5,
        minimum=95,
    ),
    "cityscapes_semantic": Case("cityscapes", "cityscapes", "semantic_fpn", {"sem_seg": ("mIoU", "IoU_sup")}),
    "voc": Case("pascal_voc", "voc", "faster_rcnn", {"bbox": ("AP", "AP50", "AP75")}),
    "shapes": Case(
        "shapes", "shapes", "keypoint_rcnn", {"bbox": COCO, "keypoints": ("AP", "AP50", "AP75", "AR")}
    ),
    "shapes_panoptic": Case(
        "shapes",
        "shapes",
        "panoptic_fpn",
        {"bbox": COCO, "segm": COCO, "sem_seg": ("mIoU", "pACC"), "panoptic_seg": PANOPTIC},
    ),
    "yolo": Case("yolo", "yolo", "faster_rcnn", {"bbox": COCO}, {"named": True}),
    "yolo_polygons": Case("yolo", "yolo", "mask_rcnn", {"bbox": COCO, "segm": COCO}, {"polygons": True}),
    "voc_folder": Case("voc_folder", "voc_folder", "faster_rcnn", {"bbox": COCO}),
    "several": Case("custom", "several", "mask_rcnn", {"bbox": COCO, "segm": COCO}),
    **{
        name: Case(name, name, "mask_rcnn", {"bbox": COCO, "segm": COCO})
        for name in ("labelme", "via", "cvat", "label_studio", "supervisely", "dota", "coco_folder")
    },
    "open_images": Case("open_images", "open_images", "faster_rcnn", {"bbox": COCO}),
}


def test_every_format_is_a_case() -> None:
    assert set(folder_formats()) <= {case.name for case in CASES.values()}


class Sample(NamedTuple):
    """A dataset on disk, and a small recipe for it."""

    case: Case
    ground_truth: published.GroundTruth
    recipe: str
    overrides: list[str]

    def compose(self, folder: Path) -> Any:
        """The config, in which the dataset is resolved."""
        cfg = apply_overrides(get_config(self.recipe), [*self.overrides, f"train.output_dir={folder}"])
        resolve_dataset(cfg)
        return cfg


@pytest.fixture(scope="module", params=CASES)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """Each dataset in its published layout, with a small recipe."""
    case = CASES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    module = published if hasattr(published, case.write) else tool_exports
    ground_truth = getattr(module, case.write)(root, **case.options)
    data = [f"data.name={case.name}"]
    if case.name in folder_formats():
        data.append(f"data.root={root}")
    if case.name == "custom":
        for split in published.COUNTS:
            for kind, form in (("json", "{root}/{part}/{split}.json"), ("images", "{root}/{part}/{split}")):
                paths = ",".join(form.format(root=root, part=part, split=split) for part in "ab")
                data.append(f"data.{split}_{kind}=[{paths}]")
    recipe = f"{case.recipe}_timm.py"
    tiny = [override.replace("settings.custom", f"settings.{case.name}") for override in conftest.TINY]
    cfg = get_config(recipe)
    # not every recipe has every key
    size = [o for o in [*tiny, *SMALL] if OmegaConf.select(cfg, o.partition("=")[0]) is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        patch.setattr("d2timm.data.datasets.shapes.COUNTS", published.COUNTS)
        yield Sample(case, ground_truth, recipe, [*data, *size])
        catalog.forget()


def perfect_output(entry: dict[str, Any], tasks: list[str], num_classes: int) -> dict[str, Any]:
    """The ground truth of an image in the format of a detector's output."""
    output: dict[str, Any] = {}
    size = entry["height"], entry["width"]
    if "bbox" in tasks:
        output["instances"] = perfect_instances(entry, tasks, size)
    if "sem_seg" in tasks:
        labels = read_semantic(entry)
        masks = np.stack([labels == index for index in range(num_classes)])
        output["sem_seg"] = torch.from_numpy(masks).float()
    if "panoptic_seg" in tasks:
        segments = torch.from_numpy(read_segments(entry["pan_seg_file_name"]))
        infos = [
            {key: info[key] for key in ("id", "isthing", "category_id")}
            for info in entry["segments_info"]
            if not info["iscrowd"]
        ]
        output["panoptic_seg"] = segments, infos
    return output


def perfect_instances(entry: dict[str, Any], tasks: list[str], size: tuple[int, int]) -> Instances:
    """The objects of an image as detections, without crowds."""
    annotations = without_crowds(entry)
    instances = Instances(size)
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4))
    instances.pred_classes = torch.tensor([a["category_id"] for a in annotations])
    instances.scores = torch.linspace(0.9, 0.5, len(annotations))
    if "segm" in tasks:
        rles = [coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], *size)) for a in annotations]
        instances.pred_masks = torch.from_numpy(np.stack([coco_mask.decode(rle) == 1 for rle in rles]))
    if "keypoints" in tasks:
        points = torch.tensor([a["keypoints"] for a in annotations]).reshape(len(annotations), -1, 3)
        centres = instances.pred_boxes.get_centers()[:, None].expand(-1, points.shape[1], -1)
        unlabelled = points[..., 2] == 0
        points[..., :2][unlabelled] = centres[unlabelled].to(points)
        instances.pred_keypoints = torch.cat([points[..., :2], torch.ones_like(points[..., 2:])], dim=2)
    return instances


def without_crowds(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [annotation for annotation in entry["annotations"] if not annotation.get("iscrowd")]


@pytest.mark.parametrize("split", published.COUNTS)
def test_loaded_objects_match_the_drawn_objects(sample: Sample, split: str, tmp_path: Path) -> None:
    cfg = sample.compose(tmp_path)
    dicts = catalog.dataset_dicts(cfg.data, split)
    assert {Path(entry["file_name"]).name for entry in dicts} == set(sample.ground_truth[split])
    assert len({entry["image_id"] for entry in dicts}) == len(dicts)
    if "bbox" not in catalog.tasks_of(cfg.data):
        return
    names = catalog.class_names(cfg.data)
    for entry in dicts:
        loaded = sorted(
            (names[a["category_id"]], *BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS))
            for a in without_crowds(entry)
        )
        drawn = sorted(
            (name, *box) for name, box in sample.ground_truth[split][Path(entry["file_name"]).name]
        )
        assert [name for name, *_ in loaded] == [name for name, *_ in drawn]
        assert np.array([box for _, *box in loaded]) == pytest.approx(
            np.array([box for _, *box in drawn]), abs=sample.case.tolerance
        )


def test_ground_truth_scores_100(sample: Sample, tmp_path: Path) -> None:
    cfg = sample.compose(tmp_path)
    evaluators = DatasetEvaluators(catalog.evaluators(cfg.data, "val", str(tmp_path)))
    evaluators.reset()
    tasks, num_classes = catalog.tasks_of(cfg.data), catalog.num_semantic_classes(cfg.data)
    for entry in catalog.dataset_dicts(cfg.data, "val"):
        evaluators.process([entry], [perfect_output(entry, tasks, num_classes)])
    results = evaluators.evaluate()
    assert set(results) == set(sample.case.metrics)
    for task, metrics in sample.case.metrics.items():
        for metric in metrics:
            assert sample.case.minimum <= results[task][metric] <= 100.001, f"{task}/{metric}"


@pytest.mark.sampled("datasets", every=3)
def test_training_and_evaluation(sample: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = {"resume": False, "eval_only": False, "dry_run": False}
    machines = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    length = ["train.max_iter=2", "train.eval_period=0", f"train.output_dir={folder}"]
    cfg = apply_overrides(get_config(sample.recipe), [*sample.overrides, *length])
    start(cfg, Namespace(**flags, **machines), ["d2timm", "train"])
    record = Record.read(folder)
    assert record is not None
    assert (record.status, record.iterations) == ("done", 2)
    assert set(record.metrics) == set(sample.case.metrics)
    for task, metrics in sample.case.metrics.items():
        assert set(metrics) <= set(record.metrics[task])
        assert math.isfinite(record.metrics[task][metrics[0]]), f"{task}/{metrics[0]}"
    assert (folder / "predictions.png").is_file()


# The group `data` of the Hydra front-end


@pytest.fixture(scope="module")
def compose() -> Iterator[Callable[..., Any]]:
    """Compose overrides as the front-end does."""
    store_groups(read_nodes())
    with hydra.initialize_config_dir(str(resource_folder("conf")), version_base="1.3"):
        yield lambda *overrides: hydra.compose("config", list(overrides))


@pytest.mark.sampled("datasets", every=4)
@pytest.mark.parametrize(
    "name",
    sorted(
        path.stem
        for path in (resource_folder("lazy_configs") / "common" / "data").glob("*.py")
        if path.stem != "auto"
    ),
)
def test_option_selects_the_dataset_of_its_name(name: str, compose: Callable[..., Any]) -> None:
    option = compose(f"data={name}")
    assert option.data.name == name
    assert option == compose(f"data.name={name}")
