"""Fixtures of all tests: no network, no COCO, an empty cache; a small dataset and tiny detectors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import sampling
from hypothesis import settings

# Set before torch and huggingface_hub are imported, and inherited by the processes that tests start. The
# detectors are so small that more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

# The same examples in every run, and no deadline on a busy machine
settings.register_profile("d2timm", derandomize=True, deadline=None)
settings.load_profile("d2timm")

SIDES = {
    "train": [(64, 96), (80, 64), (96, 96), (64, 64), (72, 88), (96, 72)],
    "val": [(80, 96), (64, 64), (96, 72)],
}
CATEGORY_IDS = (11, 3, 40, 7)  # with gaps, as in COCO, and not in the order of the classes

# Overrides that make the real recipe small: a training step takes about 0.1 s.
TINY = [
    "model.backbone.bottom_up.model_name=test_efficientnet",
    "model.backbone.bottom_up.pretrained=False",
    "model.backbone.out_channels=16",
    "model.proposal_generator.batch_size_per_image=32",
    "model.proposal_generator.pre_nms_topk=[50,50]",
    "model.proposal_generator.post_nms_topk=[20,20]",
    "model.roi_heads.box_head.fc_dims=[16,16]",
    "data.settings.custom.train_short_edges=[64]",
    "data.settings.custom.test_short_edge=64",
    "data.settings.custom.max_size=64",
    "data.settings.custom.batch_size=2",
    "data.settings.custom.rois_per_image=16",
    "data.settings.custom.detections_per_image=10",
    "data.settings.custom.max_iter=4",
    "data.settings.custom.eval_period=2",
    "data.settings.custom.checkpoint_period=2",
    "data.settings.custom.workers=0",
    "train.device=cpu",
    "train.amp.enabled=False",
    "train.log_period=1",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run sampled tests completely")
    parser.addoption("--record", action="store_true", help="record that all tests passed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is sampled; slow files come first, so that all processes end at the same time."""
    runs, left_out = sampling.select(items, config.getoption("--full"))
    config.hook.pytest_deselected(items=left_out)
    slow = {item.path for item in runs if item.get_closest_marker("slow")}
    items[:] = sorted(runs, key=lambda item: item.path not in slow)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    records = config.getoption("--record") and not hasattr(config, "workerinput")
    if records and exitstatus == pytest.ExitCode.OK:
        assert config.getoption("--full"), "--record needs --full"
        assert config.args == config.getini("testpaths"), "--record needs a run of all tests"
        sampling.write()


@dataclass(frozen=True)
class CocoFiles:
    """The files of a dataset, as a user passes them."""

    train_json: Path
    train_images: Path
    val_json: Path
    val_images: Path

    @property
    def overrides(self) -> list[str]:
        """The four ``data.*`` overrides."""
        return [f"data.{name}={path}" for name, path in vars(self).items()]


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A machine without COCO, and with a temporary cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2TIMM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="session")
def small_coco(tmp_path_factory: pytest.TempPathFactory) -> CocoFiles:
    """A few pictures of 64 to 96 pixels in COCO format; the category ids have gaps."""
    import cv2

    root = tmp_path_factory.mktemp("coco")
    for split, sides in SIDES.items():
        (root / split).mkdir()
        coco = _draw(split, sides)
        for image in coco["images"]:
            cv2.imwrite(str(root / split / image["file_name"]), image.pop("pixels"))
        (root / f"{split}.json").write_text(json.dumps(coco))
    return CocoFiles(root / "train.json", root / "train", root / "val.json", root / "val")


def _draw(split: str, sides: list[tuple[int, int]]) -> dict[str, Any]:
    """Pictures of the embedded dataset at other sizes, and their annotations."""
    import cv2

    from d2timm.data.datasets.shapes import CLASSES, SIZE, draw_image

    images, annotations = [], []
    for index, (height, width) in enumerate(sides):
        pixels, shapes = draw_image(split, index)
        resized = cv2.resize(pixels[..., ::-1], (width, height), interpolation=cv2.INTER_AREA)
        name = f"{index}.png"
        images.append(
            {"id": 100 + index, "file_name": name, "height": height, "width": width, "pixels": resized}
        )
        scale = (width / SIZE, height / SIZE)
        for shape in shapes:
            x, y, w, h = (value * scale[i % 2] for i, value in enumerate(shape.bbox))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + index,
                    "category_id": CATEGORY_IDS[CLASSES.index(shape.category)],
                    "bbox": [x, y, w, h],
                    "area": shape.area * scale[0] * scale[1],
                    "segmentation": [[v * scale[i % 2] for i, v in enumerate(p)] for p in shape.polygons],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture(scope="session")
def tiny_overrides(small_coco: CocoFiles) -> Callable[..., list[str]]:
    """Overrides that make a recipe tiny: ``tiny_overrides(recipe, output_dir, *more)``."""

    def overrides(recipe: str, output_dir: Path, *more: str) -> list[str]:
        masks = ["model.roi_heads.mask_head.conv_dims=[16,16]"] if "mask" in recipe else []
        return [*TINY, *masks, *small_coco.overrides, f"train.output_dir={output_dir}", *more]

    return overrides


@pytest.fixture(scope="session")
def tiny(tiny_overrides: Callable[..., list[str]]) -> Callable[..., Any]:
    """A recipe made tiny by overrides, its dataset resolved: ``tiny(recipe, output_dir, *more)``."""
    from d2timm import get_config
    from d2timm.config.build import resolve_dataset
    from d2timm.config.overrides import apply_overrides

    def compose(recipe: str, output_dir: Path, *more: str) -> Any:
        cfg = apply_overrides(get_config(recipe), tiny_overrides(recipe, output_dir, *more))
        resolve_dataset(cfg)
        return cfg

    return compose


@pytest.fixture(scope="session")
def tiny_run(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the tiny Mask R-CNN recipe, two iterations; tests must not change it."""
    from d2timm.engine.process import run

    folder = tmp_path_factory.mktemp("run") / "tiny"
    run(tiny("mask_rcnn_timm.py", folder, "data.settings.custom.max_iter=2"))
    return folder
