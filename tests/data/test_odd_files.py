"""COCO files as tools, scripts and people write them: ids, encodings, boxes, masks, classes, keypoints.

Each file is rejected with one line, or all of it is used or counted; what is used arrives at its place in the
detector's input, and scores 100 when it is given as detections.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import FIRST, drop, put
from helpers.mutations import mutated
from helpers.odd_edits import (
    Expected,
    OddEdit,
    assert_becomes,
    both,
    cases_of,
    compressed,
    encoded,
    kept,
    merged,
    objects,
    rejected,
    renumbered,
    train,
    uncompressed,
    val,
)
from helpers.odd_sets import FIRST_BOX, SIZES, Coco, OddSet, describe, examine
from hypothesis import HealthCheck, given, settings

from d2timm.data import catalog

Cases = dict[str, tuple[OddEdit, Expected]]

POLYGON = [4, 6, 24, 6, 24, 16, 4, 16]
RUNS = uncompressed(FIRST_BOX, (60, 40))
ODD_IDS = kept(odd_ids=(5, 4))
ODD_IMAGE_IDS = kept(odd_ids=(3, 2))
ONE_IMAGE_LESS = {"objects": (4, 4), "images": (2, 2)}
ONE_OBJECT_LESS = {"objects": (5, 4)}
ONE_MASK_LESS = {"masks": (5, 4)}
SECOND = slice(1, 2)


def set_ids(*ids: Any) -> OddEdit:
    """The ids of the training images, also in their two objects each."""

    def edit(coco: Coco) -> None:
        for index, value in enumerate(ids):
            coco["images"][index]["id"] = value
            for annotation in coco["annotations"][2 * index : 2 * index + 2]:
                annotation["image_id"] = value

    return train(edit)


IDS: Cases = {
    "text": (both(renumbered(str, str)), ODD_IDS),
    "names": (both(renumbered("img_{}".format, "c{}".format)), ODD_IDS),
    "floats": (both(renumbered(float, float)), ODD_IDS),
    "fractions": (both(renumbered(lambda i: i + 0.5, lambda i: i / 4)), kept(odd_ids=(5, 4))),
    "text in objects": (both(renumbered(image_of=str, category_of=str)), kept()),
    "numbers in objects": (both(renumbered(str, str, int, int)), ODD_IDS),
    "floats as text": (both(renumbered("{}.0".format, image_of=int)), ODD_IMAGE_IDS),
    "zeros before numbers": (both(renumbered("{:06}".format, image_of=int)), ODD_IMAGE_IDS),
    "blanks in objects": (both(renumbered(image_of=" {} ".format)), kept()),
    "54 bits": (both(renumbered(lambda i: 2**53 + i, lambda i: 2**53 + i)), ODD_IDS),
    "64 bits": (both(renumbered(lambda i: 2**63 + i, lambda i: 2**64 + i)), ODD_IDS),
    "64 bits, text in objects": (
        both(renumbered(lambda i: 2**63 + i, image_of=lambda i: str(2**63 + i))),
        ODD_IMAGE_IDS,
    ),
    "400 digits": (both(renumbered(lambda i: 10**400 + i)), ODD_IMAGE_IDS),
    "negative": (both(renumbered(lambda i: -i, lambda i: -i)), kept()),
    "from zero": (both(renumbered(lambda i: i - 1, lambda i: i - 1)), kept()),
    "booleans": (both(renumbered(category=lambda i: i == 1)), kept(odd_ids=(2, 2))),
    "several kinds": (set_ids(1, "2", 3.0), kept(odd_ids=2)),
    "number and text of it": (set_ids(1, "1", 2), kept(odd_ids=1)),
    "NaN": (set_ids(math.nan), kept(odd_ids=1)),
    "infinite": (set_ids(math.inf), kept(odd_ids=1)),
    "null image": (
        train(put("images", "id", None, FIRST)),
        kept(**ONE_IMAGE_LESS, invalid_image=1, unknown_image=2),
    ),
    "list as image": (
        train(put("images", "id", [1], FIRST)),
        kept(**ONE_IMAGE_LESS, invalid_image=1, unknown_image=2),
    ),
    "missing image": (
        train(drop("images", "id", FIRST)),
        kept(**ONE_IMAGE_LESS, invalid_image=1, unknown_image=2),
    ),
    "null category": (
        both(put("categories", "id", None, FIRST)),
        kept((3, 2), invalid_category=(1, 1), unknown_category=(3, 2)),
    ),
    "empty category": (train(lambda coco: coco["categories"].append({})), kept(invalid_category=1)),
    "null annotation": (both(put("annotations", "id", None)), kept()),
    "missing annotation": (both(drop("annotations", "id")), kept()),
    "repeated annotation": (both(put("annotations", "id", 7)), kept(duplicate_ids=(1, 1))),
    "unknown image": (
        train(put("annotations", "image_id", 99, FIRST)),
        kept(**ONE_OBJECT_LESS, unknown_image=1),
    ),
    "list in object": (
        train(put("annotations", "image_id", [1], FIRST)),
        kept(**ONE_OBJECT_LESS, unknown_image=1),
    ),
    "no image in object": (
        train(drop("annotations", "image_id", FIRST)),
        kept(**ONE_OBJECT_LESS, unknown_image=1),
    ),
    "unknown category": (
        train(put("annotations", "category_id", 99, FIRST)),
        kept(**ONE_OBJECT_LESS, unknown_category=1),
    ),
    "null category in object": (
        train(put("annotations", "category_id", None, FIRST)),
        kept(**ONE_OBJECT_LESS, unknown_category=1),
    ),
    "two files": (
        train(put("images", "id", 1, SECOND)),
        rejected("more than half of the images .*: 2 of 3; image ids .*: 2, 1.png: id 1; 2.png: id 1"),
    ),
    "one for all images": (train(put("images", "id", 1)), rejected("no usable images.*: 3 are listed")),
    "image listed again": (train(lambda coco: coco["images"].append({**coco["images"][0]})), kept()),
    "category listed again": (
        both(lambda coco: coco["categories"].append({**coco["categories"][0]})),
        kept(),
    ),
    "category with two names": (
        both(lambda coco: coco["categories"].append({"id": 1, "name": "x"})),
        rejected("category ids with several names .*: 1: x$"),
    ),
    "gaps": (both(renumbered(category=lambda i: 10 * i + 1)), kept()),
    "categories reversed": (both(lambda coco: coco["categories"].reverse()), kept()),
    "keys of our own files": (
        both(lambda coco: [e.update(original_id=7, source="manual") for part in coco.values() for e in part]),
        kept(),
    ),
}

ENCODINGS: Cases = {
    codec: (encoded(codec), kept())
    for codec in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
}
ENCODINGS |= {
    "latin-1": (
        lambda odd: (
            put("categories", "name", "é", FIRST)(odd.train),
            encoded("latin-1", ensure_ascii=False)(odd),
        ),
        rejected("train.json is not JSON: .*save it in UTF-8$"),
    ),
    "gzip": (encoded("gzip"), rejected("train.json is not JSON: .*UTF-8$")),
    "empty": (lambda odd: odd.write("train", b""), rejected("train.json is not JSON")),
    "zeros": (lambda odd: odd.write("train", bytes(100)), rejected("train.json is not JSON")),
    "truncated": (lambda odd: odd.write("train", b'{"images": [{"id"'), rejected("train.json is not JSON")),
    "JSON lines": (lambda odd: odd.write("train", b"{}\n{}"), rejected("train.json is not JSON: .*line 2")),
    "comment": (lambda odd: odd.write("train", b"// COCO\n{}"), rejected("train.json is not JSON")),
    "deep": (lambda odd: odd.write("train", b"[" * 100_000), rejected("train.json is not JSON: .*recursion")),
    "long number": (
        lambda odd: odd.write("train", b"[" + b"9" * 5000 + b"]"),
        rejected("train.json is not JSON"),
    ),
    "results": (
        lambda odd: odd.write("train", json.dumps(odd.train["annotations"]).encode()),
        rejected("data.train_json=.* is not in COCO format: it has no list 'images'"),
    ),
    "null": (lambda odd: odd.write("train", b"null"), rejected("no list 'images'")),
    "further lists": (both(lambda coco: coco.update(info=None, licenses=[1], videos={})), kept()),
}

STRUCTURE: Cases = {}
for key in ("images", "annotations", "categories"):
    STRUCTURE |= {
        f"no {key}": (train(lambda coco, key=key: coco.pop(key)), rejected(f"no list '{key}'")),
        f"null {key}": (train(lambda coco, key=key: coco.update({key: None})), rejected(f"no list '{key}'")),
        f"mapping of {key}": (
            train(lambda coco, key=key: coco.update({key: {"1": {}}})),
            rejected(f"no list '{key}'"),
        ),
        f"null in {key}": (
            train(lambda coco, key=key: coco[key].append(None)),
            rejected(f"'{key}' contains null"),
        ),
        f"list in {key}": (
            train(lambda coco, key=key: coco[key].append([1])),
            rejected(rf"'{key}' contains \[1\]"),
        ),
        f"empty {key}": (
            train(lambda coco, key=key: coco[key].clear()),
            rejected("data.train_json=.*no usable (images|objects)"),
        ),
        f"empty {key} of val": (
            val(lambda coco, key=key: coco[key].clear()),
            rejected("data.val_json=.*no usable (images|objects)"),
        ),
    }
STRUCTURE |= {
    "empty image": (train(lambda coco: coco["images"].append({})), kept(invalid_image=1)),
    "empty annotation": (train(lambda coco: coco["annotations"].append({})), kept(unknown_image=1)),
}


def flags(expected: Expected, *values: Any) -> Cases:
    return {repr(value): (both(put("annotations", "iscrowd", value, FIRST)), expected) for value in values}


CROWDS: Cases = {
    **flags(kept(), None, False, 0.0, "0", "False", "no", "", "None"),
    **flags(kept((5, 3), notes="crowd_object"), True, 1.0, 2, -1, "1", " 1 ", "true", "1.0"),
    **flags(kept((5, 3), invalid_annotation=(1, 1)), "maybe", [], {}, math.nan),
}
CROWDS |= {
    "missing": (both(drop("annotations", "iscrowd")), kept()),
    "all": (
        train(put("annotations", "iscrowd", 1)),
        rejected("no usable objects.*: 6 are listed, of which 6 are crowds"),
    ),
    "all of val": (val(put("annotations", "iscrowd", 1)), rejected("data.val_json.*no usable objects")),
    "all of an image": (both(put("annotations", "iscrowd", 1, slice(2))), kept((4, 2), notes="empty_image")),
    "without a mask": (
        val(
            lambda coco: coco["annotations"].__setitem__(
                0, {**coco["annotations"][0], "iscrowd": 1, "segmentation": None}
            )
        ),
        kept((6, 3)),
    ),
    "run lengths": (
        val(
            lambda coco: coco["annotations"][0].update(
                iscrowd=1, segmentation={"size": [40, 60], "counts": [0, 100, 2300]}
            )
        ),
        kept((6, 3)),
    ),
    "ignored": (both(put("annotations", "ignore", 1, FIRST)), kept((5, 3), notes="difficult_object")),
    "not ignored": (both(put("annotations", "ignore", 0)), kept()),
}

AREAS: Cases = {
    f"{value!r:.20}": (both(put("annotations", "area", value)), kept())
    for value in (None, "200", "12,5", "abc", 0, -5, math.nan, math.inf, [], 1e300, 10**400, True)
}
AREAS["missing"] = both(drop("annotations", "area")), kept()


def box(value: Any, with_mask: Expected, without: Expected) -> Cases:
    """A box of an object with a mask, and of one without."""
    put_box, drop_mask = put("annotations", "bbox", value, FIRST), drop("annotations", "segmentation", FIRST)
    return {
        f"{value!r:.40}": (train(put_box), with_mask),
        f"{value!r:.40} alone": (train(lambda coco: (put_box(coco), drop_mask(coco))), without),
    }


BOXES: Cases = {}
for value in (
    *(
        None,
        [],
        "",
        5,
        True,
        [4, 6, 20],
        [4, 6, 20, 10, 1],
        ["4px", 6, 20, 10],
        [None] * 4,
        [True, 6, 20, 10],
    ),
    *(
        [4, 6, math.nan, 10],
        [4, 6, math.inf, 10],
        [4, 6, 1e300, 5],
        [4, 6, 10**400, 5],
        ["4", "6", "1e300", 5],
    ),
    *({"x": 4, "y": 6, "width": 20, "height": 10}, "4,6,20,10", [FIRST_BOX]),
):
    BOXES |= box(value, kept(box_from_mask=1), kept(**ONE_OBJECT_LESS, invalid_annotation=1))
for value in ([4, 6, 0, 10], [4, 6, 20, 0], [4, 6, -20, 10], [24, 16, -20, -10]):
    BOXES |= box(value, kept(box_from_mask=1), kept(**ONE_OBJECT_LESS, empty_box=1))
for value in ([100, 6, 20, 10], [-20, 6, 20, 10], [4, -10, 20, 10], [4, 40, 20, 10]):
    BOXES |= box(value, *[kept(**ONE_OBJECT_LESS, outside_box=1)] * 2)
for value in ([59.9999999, 6, 20, 10], [4, 6, 1e-7, 10], [4, 6, 0.001, 0.001]):
    BOXES |= box(value, *[kept(**ONE_OBJECT_LESS, empty_box=1)] * 2)
for value in ([-10, -10, 500, 500], [-3, 6, 20, 10], [50, 6, 20, 10], [4, 6, 9e6, 9e6]):
    BOXES |= box(
        value,
        kept(notes="beyond_image", exact=False),
        kept(**ONE_MASK_LESS, notes="beyond_image no_mask", exact=False),
    )
BOXES |= box([4.0, 6.0, 20.0, 10.0], kept(), kept(**ONE_MASK_LESS, notes="no_mask"))
BOXES |= box(
    ["4", "6", "20", "10"], kept(odd_numbers=1), kept(**ONE_MASK_LESS, odd_numbers=1, notes="no_mask")
)


def as_fractions(coco: Coco) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        width, height = sizes[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x / width, y / height, w / width, h / height]


def as_corners(annotation: dict[str, Any]) -> None:
    x, y, w, h = annotation["bbox"]
    annotation["bbox"] = [x, y, x + w, y + h]


BOXES |= {
    "missing": (both(drop("annotations", "bbox")), kept(box_from_mask=(6, 4))),
    "text": (both(objects(lambda a: a.update(bbox=[*map(str, a["bbox"])]))), kept(odd_numbers=(6, 4))),
    "corners": (both(objects(as_corners)), rejected(r"data.train_json.*corners \[x0, y0, x1, y1\]")),
    "corners in val": (val(objects(as_corners)), rejected("data.val_json.*corners")),
    "fractions": (both(as_fractions), rejected("data.train_json.*fractions")),
    "fractions in val": (val(as_fractions), rejected("data.val_json.*fractions")),
}

RLE = {"size": [40, 60], "counts": RUNS}
COMPRESSED = compressed(RLE)
MASKS_READ: dict[str, tuple[Any, str]] = {
    "polygon": ([POLYGON], ""),
    "flat": (POLYGON, "flat_polygon"),
    "corners": ([[4, 6], [24, 6], [24, 16], [4, 16]], "flat_polygon"),
    "corners in a list": ([[[4, 6], [24, 6], [24, 16], [4, 16]]], ""),
    "closed": ([[*POLYGON, 4, 6]], ""),
    "repeated corners": ([[4, 6, 4, 6, 24, 6, 24, 16, 24, 16, 4, 16]], ""),
    "text": ([[*map(str, POLYGON)]], ""),
    "two parts": ([[4, 6, 14, 6, 14, 16, 4, 16], [14, 6, 24, 6, 24, 16, 14, 16]], ""),
    "line and polygon": ([[4, 6, 24, 16], POLYGON], "part_of_mask"),
    "nothing and polygon": ([[], POLYGON], "part_of_mask"),
    "odd number and polygon": ([POLYGON[:7], POLYGON], "part_of_mask"),
    "run lengths": (RLE, ""),
    "runs as text": ({"size": ["40", "60"], "counts": [*map(str, RUNS)]}, ""),
    "runs as floats": ({"size": [40.0, 60.0], "counts": [*map(float, RUNS)]}, ""),
    "compressed": (COMPRESSED, ""),
}
MASKS_UNREAD: dict[str, tuple[Any, str]] = {
    **{repr(value): (value, "") for value in (None, [], {}, "")},
    "[[]]": ([[]], "degenerate_polygon"),
    "one corner": ([[4, 6]], "degenerate_polygon"),
    "two corners": ([[4, 6, 24, 16]], "degenerate_polygon"),
    "there and back": ([[4, 6, 24, 6, 4, 6]], "degenerate_polygon"),
    "line": ([[4, 6, 24, 16, 14, 11]], "degenerate_polygon"),
    "point": ([[4, 6] * 4], "degenerate_polygon"),
    "thin": ([[4, 6.1, 24, 6.1, 24, 6.3, 4, 6.3]], "degenerate_polygon"),
    "tiny": ([[4.1, 6.1, 4.2, 6.1, 4.2, 6.2]], "degenerate_polygon"),
    "outside": ([[100, 100, 120, 100, 120, 120]], "degenerate_polygon"),
    "background": ({"size": [40, 60], "counts": [2400]}, "degenerate_polygon"),
    "odd number": ([POLYGON[:-1]], "invalid_mask"),
    "far outside": ([[1e6, 1e6, 2e6, 1e6, 2e6, 2e6]], "invalid_mask"),
    "huge": ([[0, 0, 1e12, 0, 1e12, 1e12, 0, 1e12]], "invalid_mask"),
    "NaN": ([[4, 6, math.nan, 6, 24, 16]], "invalid_mask"),
    "infinite": ([[4, 6, math.inf, 6, 24, 16]], "invalid_mask"),
    "null": ([[None] * 8], "invalid_mask"),
    "letters": ([["a"] * 8], "invalid_mask"),
    "booleans": ([[True] * 8], "invalid_mask"),
    "objects": ([{"x": 4, "y": 6}, {"x": 24, "y": 6}, {"x": 24, "y": 16}], "invalid_mask"),
    "nested": ([[[POLYGON]]], "invalid_mask"),
    "numbers and lists": ([4, 6, [24, 6]], "invalid_mask"),
    "word": ("polygon", "invalid_mask"),
    "number": (0, "invalid_mask"),
    "list of run lengths": ([RLE], "invalid_mask"),
    "size reversed": ({**RLE, "size": [60, 40]}, "other_rle_size"),
    "other size": ({"size": [10, 10], "counts": [0, 100]}, "other_rle_size"),
    "no size": ({"counts": RUNS}, "invalid_mask"),
    "null size": ({"size": None, "counts": RUNS}, "invalid_mask"),
    "no counts": ({"size": [40, 60]}, "invalid_mask"),
    "too short": ({"size": [40, 60], "counts": RUNS[:-1]}, "invalid_mask"),
    "too long": ({"size": [40, 60], "counts": [*RUNS, 5]}, "invalid_mask"),
    "negative": ({"size": [40, 60], "counts": [-5, 5, 2400]}, "invalid_mask"),
    "fractions of pixels": ({"size": [40, 60], "counts": [0.5, 2399.5]}, "invalid_mask"),
    "no runs": ({"size": [40, 60], "counts": []}, "invalid_mask"),
    "garbage": ({"size": [40, 60], "counts": "hello world"}, "invalid_mask"),
    "not ASCII": ({"size": [40, 60], "counts": "é"}, "invalid_mask"),
    "cut off": ({**COMPRESSED, "counts": COMPRESSED["counts"][:-1]}, "invalid_mask"),
}


def mask(value: Any, kind: str, **changes: Any) -> tuple[OddEdit, Expected]:
    findings = {kind: (1, 1)} if kind else {}
    return both(put("annotations", "segmentation", value, FIRST)), kept(**changes, **findings)


MASKS: Cases = {name: mask(value, kind) for name, (value, kind) in MASKS_READ.items()}
MASKS |= {
    name: mask(value, kind, masks=(5, 3), notes="no_mask") for name, (value, kind) in MASKS_UNREAD.items()
}
NO_MASKS = "has boxes but no usable segmentation"
MASKS |= {
    "crossing": mask([[4, 6, 24, 16, 24, 6, 4, 16]], "", notes="crossing_polygon", exact=False),
    "partly outside": mask([[-10, -10, 24, -10, 24, 16, -10, 16]], "", exact=False),
    "whole image": mask({"size": [40, 60], "counts": [0, 2400]}, "", exact=False),
    "in few objects": (
        both(drop("annotations", "segmentation", slice(0, None, 2))),
        kept(masks=(3, 2), notes="no_mask"),
    ),
    "in few images": (
        both(drop("annotations", "segmentation", slice(2))),
        kept(masks=(4, 2), notes="no_mask"),
    ),
    "missing in train": (
        train(drop("annotations", "segmentation")),
        kept(masks=(0, 4), other=f"data.train_json=.*{NO_MASKS}"),
    ),
    "missing in val": (
        val(drop("annotations", "segmentation")),
        kept(masks=(6, 0), other=f"data.val_json=.*{NO_MASKS}"),
    ),
    "all degenerate": (
        both(put("annotations", "segmentation", [[1, 2, 3, 4]])),
        kept(masks=(0, 0), degenerate_polygon=(6, 4), other=f"{NO_MASKS}.*; masks that cover no pixel"),
    ),
    "partly outside, no box": (
        train(
            lambda coco: coco["annotations"].__setitem__(
                0,
                {**coco["annotations"][0], "bbox": None, "segmentation": [[50, 10, 80, 10, 80, 20, 50, 20]]},
            )
        ),
        kept(box_from_mask=1, notes="beyond_image", exact=False),
    ),
}

OF_RED = slice(0, None, 2)
CLASSES: Cases = {
    "of the same name": (both(put("categories", "name", "red")), kept(same_name=(2, 2))),
    "null": (both(put("categories", "name", None)), kept()),
    "without a name": (both(drop("categories", "name")), kept()),
    "numbers": (both(lambda coco: [c.update(name=c["id"]) for c in coco["categories"]]), kept()),
    "mapping": (both(put("categories", "name", {"en": "x"}, FIRST)), kept()),
    "line break": (both(put("categories", "name", "r\ne\x1b[31md")), kept(same_name=(2, 2))),
    "half a character": (both(put("categories", "name", "\ud800")), kept(same_name=(2, 2))),
    "val has fewer": (
        val(lambda coco: (coco["categories"].pop(), coco.update(annotations=coco["annotations"][OF_RED]))),
        kept((6, 2), notes="unused_category"),
    ),
    "val has more": (
        val(
            lambda coco: (
                coco["categories"].append({"id": 3, "name": "x"}),
                put("annotations", "category_id", 3, FIRST)(coco),
            )
        ),
        kept((6, 3), untrained_class=(0, 1)),
    ),
    "val has other ids": (val(renumbered(category=lambda i: i + 50)), kept()),
    "val has reversed ids": (val(renumbered(category=lambda i: 3 - i)), kept()),
    "val has names as ids": (val(renumbered(category="c{}".format)), kept(odd_ids=(0, 2))),
    "val has another order": (val(lambda coco: coco["categories"].reverse()), kept()),
    "val has one in common": (
        val(put("categories", "name", "x", FIRST)),
        kept((6, 2), untrained_class=(0, 2), notes="unused_category"),
    ),
    "val has others": (
        val(lambda coco: [c.update(name=f"x{c['id']}") for c in coco["categories"]]),
        rejected("no class in common with the training split .*: x1, x2; in training red, blue"),
    ),
    "val has two of a name": (val(put("categories", "name", "red")), kept(same_name=(0, 2), exact=False)),
    "train has two of a name": (
        lambda odd: (
            put("categories", "name", "red")(odd.train),
            odd.val["categories"].pop(0),
            put("categories", "name", "red")(odd.val),
            odd.val.update(annotations=odd.val["annotations"][1::2]),
        ),
        kept((6, 2), same_name=2),
    ),
    "unused": (
        both(lambda coco: coco["categories"].append({**coco["categories"][0], "id": 3, "name": "x"})),
        kept(notes="unused_category"),
    ),
    "supercategory": (
        both(
            lambda coco: coco["categories"].insert(0, {**coco["categories"][0], "id": 0, "name": "colours"})
        ),
        kept(notes="unused_category"),
    ),
    "train lacks objects of one": (
        train(lambda coco: coco.update(annotations=coco["annotations"][OF_RED])),
        kept((3, 4), notes="unused_category"),
    ),
}

NO_LIST = "a keypoint head needs the same list of names 'keypoints' in every category"
NO_KEYPOINTS = "has no object with keypoints"


def keypoints(value: Any, **expected: Any) -> tuple[OddEdit, Expected]:
    return both(put("annotations", "keypoints", value, FIRST)), kept(**expected)


KEYPOINTS: Cases = {
    repr(value): keypoints(value)
    for value in (
        *(None, [], [0] * 6, [4, 6, 0, 23, 15, 2], [4, 6, 1, 23, 15, 1], ["4", "6", "2", "23", "15", "2"]),
        *([4, 6, 3, 23, 15, 7], [4, 6, -1, 23, 15, 2], [4, 6, 0.5, 23, 15, 0.9]),
    )
}
KEYPOINTS |= {
    f"{value!r:.40}": keypoints(value, invalid_keypoints=(1, 1))
    for value in (
        *([4, 6, 2], [4, 6, 2] * 3, [4, 6, 2, 23], [None, None, 0, 23, 15, 2], [math.nan] * 6, {"a": 1}, "x"),
        *([[4, 6, 2], [23, 15, 2]], [4, 6, True, 23, 15, False]),
    )
}
KEYPOINTS |= {
    "outside": keypoints([400, 600, 2, 23, 15, 2], notes="outside_keypoint"),
    "negative": keypoints([-5, 6, 2, 23, 15, 2], notes="outside_keypoint"),
    "wrong number": (both(put("annotations", "num_keypoints", 99)), kept()),
    "no number": (both(drop("annotations", "num_keypoints")), kept()),
    "missing": (both(drop("annotations", "keypoints")), kept(other=f"data.train_json=.*{NO_KEYPOINTS}")),
    "missing in val": (val(drop("annotations", "keypoints")), kept(other=f"data.val_json=.*{NO_KEYPOINTS}")),
    "unlabelled in val": (
        val(put("annotations", "keypoints", [0] * 6)),
        kept(other=f"data.val_json=.*{NO_KEYPOINTS}"),
    ),
    "classes differ": (both(put("categories", "keypoints", ["x"], FIRST)), kept(other=NO_LIST)),
    "classes have none": (both(drop("categories", "keypoints")), kept(other=NO_LIST)),
    "classes have a word": (both(put("categories", "keypoints", "ab")), kept(other=NO_LIST)),
    "classes have numbers": (both(put("categories", "keypoints", [1, 2])), kept(other=NO_LIST)),
    "classes of val have none": (val(drop("categories", "keypoints")), kept()),
    "classes of val have another order": (
        val(put("categories", "keypoints", ["last", "first"])),
        kept(
            other_keypoints=(0, 2),
            other="data.val_json=.*other keypoints than in the training split .*: 2, red; blue",
        ),
    ),
}

TEN = {"objects": (10, 4), "images": (5, 2)}
MERGED: Cases = {
    "plain": (merged(), kept(**TEN)),
    "text": (merged(lambda odd, more: renumbered(str, str)(more)), kept(**TEN, odd_ids=4)),
    "other ids": (
        merged(lambda odd, more: renumbered(lambda i: i + 70, lambda i: i + 70)(more)),
        kept(**TEN),
    ),
    "other order": (merged(lambda odd, more: more["categories"].reverse()), kept(**TEN)),
    "path of another machine": (
        merged(lambda odd, more: [i.update(file_name=f"C:\\set\\{i['file_name']}") for i in more["images"]]),
        kept(**TEN, moved_image=2),
    ),
    "missing image": (
        merged(lambda odd, more: (odd.root / "more" / "1.png").unlink()),
        kept((8, 4), (4, 2), missing_image=1),
    ),
    "unknown image": (
        merged(lambda odd, more: put("annotations", "image_id", 77, FIRST)(more)),
        kept((9, 4), (5, 2), unknown_image=1),
    ),
    "no objects": (
        merged(lambda odd, more: more["annotations"].clear()),
        kept((6, 4), (5, 2), notes="empty_image"),
    ),
    "other classes": (
        merged(lambda odd, more: put("categories", "name", "x", FIRST)(more)),
        rejected(r"more.json: 'name' of its categories is \['x', 'blue'\], but \['red', 'blue'\]"),
    ),
}

KINDS = {
    **{"ids": IDS, "encodings": ENCODINGS, "structure": STRUCTURE, "iscrowd": CROWDS, "area": AREAS},
    **{"boxes": BOXES, "masks": MASKS, "classes": CLASSES, "keypoints": KEYPOINTS, "merged": MERGED},
}


pytestmark = pytest.mark.usefixtures("forgetting")


@pytest.mark.parametrize(("edit", "expected"), cases_of(KINDS))
def test_file_is_rejected_or_all_of_it_is_used_or_counted(
    edit: OddEdit, expected: Expected, tmp_path: Path
) -> None:
    assert_becomes(edit, expected, tmp_path)


@pytest.mark.parametrize("tasks", [["bbox"], ["bbox", "segm"]], ids=["boxes", "masks"])
def test_thousand_objects_in_an_image(tasks: list[str], tmp_path: Path) -> None:
    odd = OddSet(tmp_path / "set")
    odd.val["annotations"] = [{**odd.val["annotations"][0], "id": i} for i in range(1000)]
    assert examine(odd, tasks, tmp_path).objects == {"train": 6, "val": 1000}


NUMBER = itertools.count()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*(mutated(describe(sizes)) for sizes in SIZES.values()))
def test_damage_anywhere_is_an_error_or_counted(tmp_path: Path, train: Coco, val: Coco) -> None:
    odd = OddSet(tmp_path / str(next(NUMBER)), exact=False)
    odd.content = {"train": train, "val": val}
    for tasks in (["bbox"], ["bbox", "segm", "keypoints"]):
        examine(odd, tasks, tmp_path)
    catalog.forget()
