"""Every format of data is read, trained on and evaluated; what is true gets full marks of its evaluators."""

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
from helpers import published
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask

from d2timm import get_config
from d2timm.config.build import resolve_dataset
from d2timm.config.groups import read_nodes
from d2timm.config.lazy import apply_overrides
from d2timm.data import catalog
from d2timm.data.datasets.panoptic import read_segments, read_semantic
from d2timm.engine.run import main
from d2timm.runs.record import Record
from d2timm.sweep.hydra_app import CONFIG, conf
from d2timm.sweep.hydra_groups import store_groups

RECIPES = Path(__file__).parents[3] / "lazy_configs"
SMALL = [
    "model.backbone.out_channels=32",
    "model.roi_heads.mask_head.conv_dims=[16,16]",
    "model.roi_heads.keypoint_head.conv_dims=[16]",
    "model.sem_seg_head.conv_dims=32",
]
COCO = ("AP", "AP50", "AP75", "AR100")
PANOPTIC = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")


class Case(NamedTuple):
    """A format, a recipe for it, and what evaluations tell."""

    name: str  # data.name
    write: str  # the function of tests/published.py
    recipe: str
    metrics: dict[str, tuple[str, ...]]
    options: dict[str, Any] = {}  # of the function  # noqa: RUF012
    slack: float = 0.01  # pixels by which boxes may differ from those that were drawn
    least: float = 99.99  # of every number


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
    # polygons are made half a pixel fatter and cut others by as much, which is much in small pictures
    "cityscapes": Case(
        "cityscapes", "cityscapes", "mask_rcnn", {"bbox": COCO, "segm": ("AP", "AP50")}, slack=1.5, least=95
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
}


class Sample(NamedTuple):
    """A set on disk."""

    case: Case
    truth: published.Truth
    recipe: str
    overrides: list[str]

    def compose(self, folder: Path) -> Any:
        """The settled config."""
        cfg = apply_overrides(get_config(self.recipe), [*self.overrides, f"train.output_dir={folder}"])
        resolve_dataset(cfg)
        return cfg


@pytest.fixture(scope="module", params=CASES)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """A set in its published layout, and the recipe made small."""
    case = CASES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    truth = getattr(published, case.write)(root, **case.options)
    data = [f"data.name={case.name}"]
    if case.name in catalog.FOLDERS:
        data.append(f"data.root={root}")
    if case.name == "custom":
        for split in published.COUNTS:
            for kind, form in (("json", "{root}/{part}/{split}.json"), ("images", "{root}/{part}/{split}")):
                paths = ",".join(form.format(root=root, part=part, split=split) for part in "ab")
                data.append(f"data.{split}_{kind}=[{paths}]")
    recipe = f"{case.recipe}_timm.py"
    tiny = [override.replace("settings.custom", f"settings.{case.name}") for override in conftest.TINY]
    whole = get_config(recipe)
    fitting = [o for o in [*tiny, *SMALL] if OmegaConf.select(whole, o.partition("=")[0]) is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        patch.setattr("d2timm.data.datasets.shapes.COUNTS", published.COUNTS)
        yield Sample(case, truth, recipe, [*data, *fitting])
        catalog.forget()


def perfect(entry: dict[str, Any], tasks: list[str], classes: int) -> dict[str, Any]:
    """What a detector that knows the truth gives for an image."""
    output: dict[str, Any] = {}
    size = entry["height"], entry["width"]
    if "bbox" in tasks:
        output["instances"] = instances(entry, tasks, size)
    if "sem_seg" in tasks:
        labels = read_semantic(entry)
        output["sem_seg"] = torch.from_numpy(
            np.stack([labels == number for number in range(classes)])
        ).float()
    if "panoptic_seg" in tasks:
        segments = torch.from_numpy(read_segments(entry["pan_seg_file_name"]))
        told = [info for info in entry["segments_info"] if not info["iscrowd"]]
        output["panoptic_seg"] = segments, [{k: i[k] for k in ("id", "isthing", "category_id")} for i in told]
    return output


def instances(entry: dict[str, Any], tasks: list[str], size: tuple[int, int]) -> Instances:
    """The objects of an image as detections; crowds are none."""
    things = [thing for thing in entry["annotations"] if not thing.get("iscrowd")]
    found = Instances(size)
    boxes = [BoxMode.convert(thing["bbox"], thing["bbox_mode"], BoxMode.XYXY_ABS) for thing in things]
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4))
    found.pred_classes = torch.tensor([thing["category_id"] for thing in things])
    found.scores = torch.linspace(0.9, 0.5, len(things))
    if "segm" in tasks:
        rles = [coco_mask.merge(coco_mask.frPyObjects(thing["segmentation"], *size)) for thing in things]
        found.pred_masks = torch.from_numpy(np.stack([coco_mask.decode(rle) == 1 for rle in rles]))
    if "keypoints" in tasks:
        points = torch.tensor([thing["keypoints"] for thing in things]).reshape(len(things), -1, 3)
        centres = found.pred_boxes.get_centers()[:, None].expand(-1, points.shape[1], -1)
        unseen = points[..., 2] == 0
        points[..., :2][unseen] = centres[unseen].to(points)
        found.pred_keypoints = torch.cat([points[..., :2], torch.ones_like(points[..., 2:])], dim=2)
    return found


def evaluate(cfg: Any, folder: Path, detector: Callable[..., dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The numbers of the set's own evaluators."""
    evaluators = DatasetEvaluators(catalog.evaluators(cfg.data, "val", str(folder)))
    evaluators.reset()
    tasks, classes = catalog.tasks_of(cfg.data), catalog.num_semantic_classes(cfg.data)
    for entry in catalog.dataset_dicts(cfg.data, "val"):
        evaluators.process([entry], [detector(entry, tasks, classes)])
    return dict(evaluators.evaluate())


@pytest.mark.parametrize("split", published.COUNTS)
def test_what_is_read_is_what_was_drawn(sample: Sample, split: str, tmp_path: Path) -> None:
    cfg = sample.compose(tmp_path)
    dicts = catalog.dataset_dicts(cfg.data, split)
    assert {Path(entry["file_name"]).name for entry in dicts} == set(sample.annotated_tasks[split])
    assert len({entry["image_id"] for entry in dicts}) == len(dicts)
    if "bbox" not in catalog.tasks_of(cfg.data):
        return
    names = catalog.class_names(cfg.data)
    for entry in dicts:
        things = [thing for thing in entry["annotations"] if not thing.get("iscrowd")]
        read = sorted(
            (
                names[thing["category_id"]],
                *BoxMode.convert(thing["bbox"], thing["bbox_mode"], BoxMode.XYXY_ABS),
            )
            for thing in things
        )
        drawn = sorted(
            (name, *box) for name, box in sample.annotated_tasks[split][Path(entry["file_name"]).name]
        )
        assert [name for name, *_ in read] == [name for name, *_ in drawn]
        assert np.array([box for _, *box in read]) == pytest.approx(
            np.array([box for _, *box in drawn]), abs=sample.case.slack
        )


def test_truth_gets_full_marks(sample: Sample, tmp_path: Path) -> None:
    results = evaluate(sample.compose(tmp_path), tmp_path, perfect)
    assert set(results) == set(sample.case.metrics)
    for task, metrics in sample.case.metrics.items():
        for metric in metrics:
            assert sample.case.least <= results[task][metric] <= 100.001, f"{task}/{metric}"


def test_trains_and_is_evaluated(sample: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = {"resume": False, "eval_only": False, "dry_run": False}
    machines = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    overrides = [*sample.overrides, "train.max_iter=2", "train.eval_period=0", f"train.output_dir={folder}"]
    main(
        Namespace(config_file=str(RECIPES / sample.recipe), overrides=overrides, **flags, **machines),
    )
    record = Record.read(folder)
    assert record is not None
    assert (record.status, record.iterations) == ("done", 2)
    assert set(record.metrics) == set(sample.case.metrics)
    for task, metrics in sample.case.metrics.items():
        assert set(metrics) <= set(record.metrics[task])
        assert math.isfinite(record.metrics[task][metrics[0]]), f"{task}/{metrics[0]}"
    assert (folder / "predictions.png").is_file()


# The option of the Hydra front-end


@pytest.fixture(scope="module")
def compose() -> Iterator[Callable[..., Any]]:
    """Compose overrides as the front-end does."""
    store_groups(read_nodes())
    with hydra.initialize_config_dir(str(conf()), version_base="1.3"):
        yield lambda *overrides: hydra.compose(CONFIG, list(overrides))


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (RECIPES / "common" / "data").glob("*.py") if path.stem != "auto")
)
def test_option_is_the_name_of_a_set(name: str, compose: Callable[..., Any]) -> None:
    option = compose(f"data={name}")
    assert option.data.name == name
    assert option == compose(f"data.name={name}")
