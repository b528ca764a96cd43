"""Which data set a config means, and what is told of files that will not do before anything starts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from helpers.coco_edits import FIRST, Change, drop, put
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2timm import ConfigError
from d2timm.config.build import build_on_meta, check_classes, instantiate
from d2timm.data import catalog
from d2timm.data.datasets.shapes import CLASSES

Data = dict[str, Any]

NAMES = ("shapes", "coco_2017", "coco_2017_keypoints", "custom", "yolo", "voc_folder", "auto")
BOXES = ["bbox"]
BOTH = ["bbox", "segm"]
NUMBER = itertools.count()


def node(**values: Any) -> Data:
    """A ``data`` node."""
    paths = dict.fromkeys(("train_json", "train_images", "val_json", "val_images"))
    return {"name": "auto", **paths, "root": None, "settings": dict.fromkeys(NAMES), **values}


def refusal(function: Callable[..., Any], *arguments: Any) -> str | None:
    """The text of the ConfigError that a call raises, or None."""
    try:
        function(*arguments)
    except ConfigError as error:
        return str(error)
    return None


@pytest.fixture
def data(small_coco: Any) -> Data:
    """The node of the small set."""
    return node(**{name: str(path) for name, path in vars(small_coco).items()})


@pytest.fixture
def change(data: Data, tmp_path: Path) -> Callable[..., Data]:
    """The node of the small set after a change of the COCO files of some splits."""

    def apply(edit: Change, *splits: str) -> Data:
        changed = dict(data)
        for split in splits or ("train", "val"):
            coco = json.loads(Path(data[f"{split}_json"]).read_text())
            edit(coco)
            file = tmp_path / f"{split}.json"
            file.write_text(json.dumps(coco))
            changed[f"{split}_json"] = str(file)
        return changed

    return apply


@pytest.fixture
def coco_2017(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_coco: Any) -> Path:
    """A folder where COCO 2017 is, as far as names tell."""
    root = tmp_path / "coco"
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir(parents=True)
        file = root / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(small_coco.train_json.read_text())
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return root


# Which set


def test_shapes_where_nothing_is_named_and_coco_is_not_there() -> None:
    assert catalog.found() == "shapes"
    assert catalog.choose(node()) == "shapes"
    assert catalog.class_names(node()) == list(CLASSES)


def test_coco_where_nothing_is_named_and_coco_is_there(coco_2017: Path) -> None:
    assert catalog.found() == "coco_2017"
    assert catalog.choose(node()) == "coco_2017"
    assert catalog.num_classes(node()) == 80
    assert catalog.data_set(node()).files("val").images == coco_2017 / "val2017"
    assert catalog.check_split(node(), "train", BOTH).startswith("coco_2017 train: ")


def test_half_of_coco_is_not_coco(coco_2017: Path) -> None:
    (coco_2017 / "annotations" / "instances_train2017.json").unlink()
    assert catalog.found() == "shapes"


@pytest.mark.parametrize("name", ["shapes", "coco_2017", "custom"])
def test_named_set_is_never_replaced(name: str, coco_2017: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalog.choose(node(name=name)) == name
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco_2017 / "nothing"))
    assert catalog.choose(node(name=name)) == name


def test_own_files_are_never_replaced(data: Data, coco_2017: Path) -> None:
    assert catalog.choose(data) == "custom"
    assert catalog.choose({**data, "name": "custom"}) == "custom"
    assert catalog.choose(node(val_json="x.json")) == "custom"


def test_coco_that_is_named_and_not_there() -> None:
    with pytest.raises(ConfigError, match=r"data\.name=coco_2017: .*instances_train2017\.json: no such file"):
        catalog.check_split(node(name="coco_2017"), "train", BOTH)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "coco"}, r"data\.name='coco': did you mean coco_2017"),
        ({"name": "Shapes"}, r"data\.name='Shapes': did you mean shapes\?"),
        ({"name": "voc"}, "; there are auto, coco_2017, .*, shapes, voc_folder, yolo$"),
        ({"name": "shapes", "val_json": "x"}, r"data\.name='shapes' and data\.val_json are two sets"),
        ({"name": "coco_2017", "train_images": "x"}, "are two sets: leave one out"),
        ({"name": "yolo", "root": "x", "val_json": "y"}, r"data\.root and data\.val_json are two sets"),
        ({"root": "x"}, r"data\.root is for data\.name=yolo or voc_folder, not 'auto'"),
        ({"name": "shapes", "root": "x"}, r"data\.root is for data\.name=yolo or voc_folder, not 'shapes'"),
    ],
)
def test_name_that_cannot_be(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        catalog.choose(node(**values))


# What is in it


def test_small_set_can_be_used(data: Data) -> None:
    for split, images in {"train": 6, "val": 3}.items():
        told = catalog.check_split(data, split, BOTH)
        assert told.startswith(f"custom {split}: {images} images, ")
        assert told.endswith(" objects, 4 classes")


def test_category_ids_with_gaps_become_class_numbers(data: Data) -> None:
    coco = json.loads(Path(data["train_json"]).read_text())
    ids = sorted(category["id"] for category in coco["categories"])
    assert ids != list(range(ids[0], ids[0] + 4)), "without gaps this shows nothing"
    names = {category["id"]: category["name"] for category in coco["categories"]}
    truth = {
        (image["file_name"], names[a["category_id"]], tuple(a["bbox"]))
        for image in coco["images"]
        for a in coco["annotations"]
        if a["image_id"] == image["id"]
    }

    classes = catalog.class_names(data)
    assert classes == [names[i] for i in ids]
    found = {
        (Path(entry["file_name"]).name, classes[a["category_id"]], tuple(a["bbox"]))
        for entry in catalog.dataset_dicts(data, "train")
        for a in entry["annotations"]
    }
    assert found == truth
    metadata = MetadataCatalog.get(catalog.dataset_name(data, "train"))
    assert metadata.thing_classes == classes
    assert metadata.thing_dataset_id_to_contiguous_id == {i: n for n, i in enumerate(ids)}


def test_set_is_registered_once_and_files_have_names_of_their_own(
    data: Data, change: Callable[..., Data]
) -> None:
    other = change(lambda coco: coco["images"].pop())
    names = [catalog.dataset_name(d, "val") for d in (data, data, other)]
    assert names[0] == names[1] != names[2]
    assert set(names) <= set(DatasetCatalog)
    assert len(catalog.dataset_dicts(other, "val")) == len(catalog.dataset_dicts(data, "val")) - 1


def test_images_without_objects_are_for_validation_only(change: Callable[..., Data]) -> None:
    def empty_first(coco: dict[str, Any]) -> None:
        first = coco["images"][0]["id"]
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != first]

    data = change(empty_first)
    assert len(catalog.dataset_dicts(data, "train")) == 5
    assert len(catalog.dataset_dicts(data, "val")) == 3


def test_changed_file_is_read_again(change: Callable[..., Data]) -> None:
    data = change(lambda coco: None)
    assert catalog.num_classes(data) == 4
    file = Path(data["train_json"])
    coco = json.loads(file.read_text())
    coco["categories"].append({"id": 99, "name": "new"})
    file.write_text(json.dumps(coco) + "\n" * 5)
    assert catalog.class_names(data)[-1] == "new"


def test_home_folder_in_a_path(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(data["train_json"]).parent
    monkeypatch.setenv("HOME", str(home))
    paths = {key: f"~/{Path(data[key]).name}" for key in catalog.PATHS}
    assert catalog.check_split({**data, **paths}, "train", BOTH).startswith("custom train: 6 images")


def test_several_files_are_one_set(data: Data, change: Callable[..., Data]) -> None:
    def shift(coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            category["id"] += 1000
        for annotation in coco["annotations"]:
            annotation["category_id"] += 1000

    other = change(shift, "train")
    both = {key: [data[key], other[key]] for key in ("train_json", "train_images")}
    assert catalog.check_split({**data, **both}, "train", BOTH).startswith("custom train: 12 images, ")
    dicts = catalog.dataset_dicts({**data, **both}, "train")
    halves = [
        sorted((a["category_id"], a["bbox"]) for entry in half for a in entry["annotations"])
        for half in (dicts[:6], dicts[6:])
    ]
    assert halves[0] == halves[1]
    assert all(Path(entry["file_name"]).is_file() for entry in dicts)
    uneven = {**data, **both, "train_images": data["train_images"]}
    with pytest.raises(ConfigError, match=r"^data\.train_json: 2 files of annotations and 1 folders"):
        catalog.check_split(uneven, "train", BOTH)


@pytest.fixture
def yolo(tmp_path: Path) -> Data:
    """A YOLO set of one image for both splits, with a box and a polygon."""
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0 0 1 0 1 1")
    (tmp_path / "data.yaml").write_text("{names: [x, y], train: ., val: .}")
    return node(name="yolo", root=str(tmp_path))


def test_folder_of_another_format(yolo: Data) -> None:
    assert catalog.choose(yolo) == "yolo"
    assert catalog.class_names(yolo) == ["x", "y"]
    for split in ("train", "val"):
        assert catalog.check_split(yolo, split, BOXES) == f"yolo {split}: 1 images, 2 objects, 2 classes"
    (entry,) = catalog.dataset_dicts(yolo, "train")
    assert entry["file_name"] == str(Path(yolo["root"], "a.png"))
    assert [a["bbox"] for a in entry["annotations"]] == [pytest.approx([18, 9, 4, 2]), [0, 0, 40, 20]]
    with pytest.raises(ConfigError, match=r"^data\.name=yolo data\.root=.* 1 annotations, .* have no seg"):
        catalog.check_split(yolo, "train", BOTH)


def test_folder_is_looked_at_once_in_a_run(yolo: Data) -> None:
    assert catalog.num_classes(yolo) == 2
    Path(yolo["root"], "data.yaml").write_text("{names: [x, y, z], train: ., val: .}")
    assert catalog.num_classes(yolo) == 2
    catalog.forget()
    assert catalog.num_classes(yolo) == 3


def test_folder_in_a_home_or_a_working_folder(yolo: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(yolo["root"])
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.chdir(root.parent)
    names = {
        catalog.dataset_name({**yolo, "root": given}, "train")
        for given in (str(root), root.name, f"~/{root.name}")
    }
    assert len(names) == 1


@pytest.mark.parametrize("name", ["yolo", "voc_folder"])
def test_folder_that_is_not_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.name={name} needs data\.root: the folder of the set$"):
        catalog.class_names(node(name=name))


def test_numbers_of_classes_follow_from_the_set_and_the_detector() -> None:
    everything = ["bbox", "segm", "sem_seg", "panoptic_seg"]
    assert catalog.num_semantic_classes(node(name="shapes", tasks=everything)) == 2
    assert catalog.num_semantic_classes(node(name="shapes", tasks=["sem_seg"])) == 5
    assert catalog.keypoint_names(node(name="shapes", tasks=["bbox"])) == []
    assert len(catalog.keypoint_names(node(name="shapes", tasks=["bbox", "keypoints"]))) == 5
    assert catalog.num_keypoints(node(name="coco_2017_keypoints")) == 17


# What will not do


@pytest.mark.parametrize(
    ("name", "tasks", "message"),
    [
        ("coco_2017", ["bbox", "keypoints"], "keypoints, .*data.name=shapes or coco_2017_keypoints"),
        ("coco_2017", ["sem_seg"], "sem_seg, .*data.name=shapes or coco_2017_panoptic or cityscapes$"),
        ("pascal_voc", BOTH, "segm, .*data.name=shapes or coco_2017 or "),
        ("lvis_v1", ["bbox", "sem_seg", "panoptic_seg"], "sem_seg, panoptic_seg, which the detector finds"),
        ("voc_folder", BOTH, "segm, which the detector finds: use another detector or ROI heads"),
    ],
)
def test_truth_that_a_set_has_not(name: str, tasks: list[str], message: str, tmp_path: Path) -> None:
    root = str(tmp_path) if name == "voc_folder" else None
    data = {**node(name=name, root=root), "settings": {name: None}}
    with pytest.raises(ConfigError, match=rf"^data\.name={name} has no truth for {message}"):
        catalog.check_split(data, "train", tasks)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("json", r"data\.{}_json=.*nothing: no such file"),
        ("images", r"data\.{}_images=.*nothing: no such folder"),
    ],
)
def test_missing_file_or_folder(data: Data, split: str, missing: str, message: str) -> None:
    data[f"{split}_{missing}"] = str(Path(data["train_json"]).parent / "nothing")
    with pytest.raises(ConfigError, match=message.format(split)):
        catalog.check_split(data, split, BOTH)


def test_paths_that_are_not_given(data: Data) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_json and data\.val_images must be given"):
        catalog.check_split({**data, "val_json": None, "val_images": None}, "val", BOTH)
    with pytest.raises(ConfigError, match=r"data\.train_images must be given"):
        catalog.check_split({**data, "train_images": None}, "train", BOTH)


def test_validation_alone_needs_no_training_files(data: Data) -> None:
    data.update(train_json=None, train_images=None)
    assert catalog.check_split(data, "val", BOTH).startswith("custom val: 3 images")


def test_file_that_will_not_do_is_named(change: Callable[..., Data]) -> None:
    data = change(put("annotations", "image_id", 5), "train")
    told = r"^data\.train_json=.*train\.json: none of its \d+ annotations is usable"
    with pytest.raises(ConfigError, match=told):
        catalog.check_split(data, "train", BOTH)
    data = change(put("images", "file_name", "gone.png", FIRST), "val")
    with pytest.raises(ConfigError, match=r"^data\.val_images=.*: 1 of 3 images of val\.json are not there"):
        catalog.check_split(data, "val", BOTH)


def test_boxes_are_enough_without_masks(change: Callable[..., Data]) -> None:
    data = change(drop("annotations", "segmentation"))
    assert catalog.check_split(data, "train", BOXES).startswith("custom train: 6 images")


def test_categories_that_differ(change: Callable[..., Data]) -> None:
    data = change(put("categories", "name", "wheel", slice(1)), "val")
    with pytest.raises(ConfigError, match=r"categories .*wheel.* are not those of the training set"):
        catalog.check_split(data, "val", BOTH)


def test_categories_in_another_order_are_the_same(change: Callable[..., Data]) -> None:
    data = change(lambda coco: coco["categories"].reverse(), "val")
    assert catalog.check_split(data, "val", BOTH).endswith("4 classes")


def test_same_names_under_other_ids_mean_the_same_classes(change: Callable[..., Data]) -> None:
    def shift(coco: dict[str, Any]) -> None:
        for category in coco["categories"]:
            category["id"] += 1000
        for annotation in coco["annotations"]:
            annotation["category_id"] += 1000

    data = change(shift, "val")
    catalog.check_split(data, "val", BOTH)
    classes = {a["category_id"] for entry in catalog.dataset_dicts(data, "val") for a in entry["annotations"]}
    assert classes <= {0, 1, 2, 3}


def test_more_classes_than_the_head(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("faster_rcnn_timm.py", tmp_path, "model.roi_heads.num_classes=3")
    with pytest.raises(
        ConfigError, match=r"has 4 classes and model\.roi_heads\.num_classes=3: leave num_classes"
    ):
        check_classes(cfg.data, build_on_meta(cfg))
    cfg.model.roi_heads.num_classes = 5
    check_classes(cfg.data, build_on_meta(cfg))


# What the check lets through can be used


@pytest.mark.parametrize("recipe", ["faster_rcnn_timm.py", "mask_rcnn_timm.py"])
def test_masks_are_read_where_the_detector_has_them(
    recipe: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    loader = tiny(recipe, tmp_path).dataloader.train
    mapper = instantiate(loader.mapper)
    example = mapper(instantiate(loader.dataset)[0])
    assert example["instances"].has("gt_masks") == ("mask" in recipe)
    assert example["image"].shape[-1] <= 64


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(drop("images", "height", FIRST), id="image without height"),
        pytest.param(drop("images", "width"), id="images without width"),
        pytest.param(drop("annotations", "id"), id="objects without id"),
        pytest.param(put("annotations", "id", 1, slice(2)), id="two objects of one id"),
        pytest.param(drop("annotations", "area"), id="objects without area"),
        pytest.param(drop("annotations", "iscrowd"), id="objects without iscrowd"),
        pytest.param(put("annotations", "iscrowd", 1, FIRST), id="crowd"),
        pytest.param(drop("annotations", "bbox", FIRST), id="object without box"),
        pytest.param(put("annotations", "bbox", [], FIRST), id="empty box"),
        pytest.param(put("annotations", "bbox", [5, 5, 0, 9], FIRST), id="box without width"),
        pytest.param(put("annotations", "category_id", 999, FIRST), id="object of no category"),
        pytest.param(put("annotations", "image_id", 999, FIRST), id="object of no image"),
        pytest.param(drop("annotations", "segmentation", FIRST), id="object without mask"),
        pytest.param(drop("annotations", "segmentation", slice(1, None)), id="one mask"),
        pytest.param(put("annotations", "segmentation", [], FIRST), id="empty mask"),
        pytest.param(put("annotations", "segmentation", [[1, 2, 3, 4]], FIRST), id="mask of two points"),
        pytest.param(lambda coco: coco.update(info={}, licenses=[]), id="information"),
    ],
)
def test_file_is_refused_or_can_be_trained_and_evaluated_on(
    edit: Change, change: Callable[..., Data], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    data = change(edit)
    refused = [refusal(catalog.check_split, data, split, BOTH) for split in ("train", "val")]
    if any(refused):
        assert all("\n" not in text for text in refused if text)
        return
    cfg = tiny("mask_rcnn_timm.py", tmp_path, *(f"data.{key}={data[key]}" for key in catalog.PATHS))
    mapper = instantiate(cfg.dataloader.train.mapper)
    examples = [mapper(entry)["instances"] for entry in instantiate(cfg.dataloader.train.dataset)]
    assert any(len(instances) for instances in examples)
    assert all(instances.has("gt_masks") for instances in examples if len(instances))

    (evaluator,) = instantiate(cfg.dataloader.evaluator)
    evaluator.reset()
    for (entry,) in instantiate(cfg.dataloader.test):
        evaluator.process([entry], [{"instances": everything(entry["height"], entry["width"])}])
    assert set(evaluator.evaluate()) == {"bbox", "segm"}


def everything(height: int, width: int) -> Instances:
    """A detection of the whole image."""
    return Instances(
        (height, width),
        pred_boxes=Boxes(torch.tensor([[0.0, 0.0, width, height]])),
        pred_masks=torch.ones(1, height, width, dtype=torch.bool),
        pred_classes=torch.tensor([0]),
        scores=torch.tensor([0.9]),
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=True)
    | st.text("ab/.\0", max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name"]), children, max_size=2)
    ),
    max_leaves=4,
)


def entries(*fields: str) -> st.SearchStrategy[list[Any]]:
    """A list as COCO has it, but with anything in its fields."""
    return st.lists(st.fixed_dictionaries(dict.fromkeys(fields, JSON)) | JSON, max_size=2)


ALMOST_COCO = st.fixed_dictionaries(
    {
        "images": entries("id", "file_name", "height", "width"),
        "annotations": entries("id", "image_id", "category_id", "bbox", "segmentation"),
        "categories": entries("id", "name"),
    }
)
IMAGE = {"id": 1, "file_name": "a", "height": 64, "width": 64}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON | ALMOST_COCO)
@example({"images": [{**IMAGE, "id": []}], "annotations": [], "categories": []})
@example({"images": [{**IMAGE, "file_name": 1}], "annotations": [], "categories": []})
@example(
    {"images": [IMAGE], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "b", "name": "b"}]}
)
@example(
    {
        "images": [IMAGE],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, "1", 2]}],
        "categories": [{"id": 1, "name": "a"}],
    }
)
@example(
    {
        "images": [IMAGE],
        "annotations": [{"id": 1, "image_id": [], "category_id": 1, "bbox": [0, 0, 1, 2]}],
        "categories": [{"id": 1, "name": "a"}],
    }
)
def test_any_json_is_a_data_set_or_a_config_error(tmp_path: Path, coco: Any) -> None:
    file = tmp_path / f"{next(NUMBER)}.json"
    file.write_text(json.dumps(coco))
    data = node(train_json=str(file), train_images=str(tmp_path))
    checked = refusal(catalog.check_split, data, "train", BOXES)
    named = refusal(catalog.class_names, data)
    assert "\n" not in f"{checked}{named}"
    if named is None:
        assert all(isinstance(name, str) for name in catalog.class_names(data))
