"""The lists of a COCO file, connected by ids of any kind."""

from __future__ import annotations

from typing import Any

import pytest

from d2timm import ConfigError
from d2timm.data.checks.findings import Findings
from d2timm.data.checks.structure import Structure, name_of, summary_of

Coco = dict[str, list[Any]]


def coco(image_ids: list[Any], category_ids: list[Any], annotations: list[tuple[Any, Any]]) -> Coco:
    """Images ``a.png``, …, classes ``A``, …, and annotations by the ids of image and category."""
    return {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in zip(image_ids, "abc", strict=False)],
        "categories": [{"id": i, "name": name} for i, name in zip(category_ids, "ABC", strict=False)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category}
            for number, (image, category) in enumerate(annotations)
        ],
    }


def read(content: Any) -> tuple[Structure, dict[str, list[str]]]:
    findings = Findings()
    return Structure(content, "x.json", findings), findings.samples


def connections(structure: Structure) -> list[tuple[str, str]]:
    """(file name, class) of each annotation."""
    names = {category["id"]: category["name"] for category in structure.categories}
    return [(structure.images[i]["file_name"], names[a["category_id"]]) for a, i in structure.annotations]


def test_plain_ids_stay() -> None:
    structure, samples = read(coco([30, 10], [9, 2], [(10, 9), (30, 2)]))
    assert [image["id"] for image in structure.images] == [30, 10]
    assert [(c["id"], c["name"]) for c in structure.categories] == [(2, "B"), (9, "A")]
    assert connections(structure) == [("b.png", "A"), ("a.png", "B")]
    assert samples == {}


def test_other_ids_are_numbered_and_kept() -> None:
    structure, samples = read(coco(["x", "y"], [2.0, 1.0], [("y", "1"), ("x", 2)]))
    assert [(i["id"], i["original_id"]) for i in structure.images] == [(1, "x"), (2, "y")]
    assert [(c["id"], c["original_id"], c["name"]) for c in structure.categories] == [
        (1, 1.0, "B"),
        (2, 2.0, "A"),
    ]
    assert connections(structure) == [("b.png", "B"), ("a.png", "A")]
    assert samples == {"odd_ids": ["1.0 of B", "2.0 of A", "'x' of a.png", "'y' of b.png"]}


def test_categories_without_numbers_are_in_the_order_of_the_file() -> None:
    assert [c["name"] for c in read(coco([], ["y", "x"], []))[0].categories] == ["A", "B"]
    assert [c["name"] for c in read(coco([], ["10", "9"], []))[0].categories] == ["B", "A"]


def test_annotations_without_an_image_or_a_category() -> None:
    structure, samples = read(coco([1], [1], [(1, 1), (2, 1), (1, 2), (None, None)]))
    assert connections(structure) == [("a.png", "A")]
    assert samples == {
        "unknown_image": ["annotation 1 of image 2", "annotation 3 of image None"],
        "unknown_category": ["annotation 2 of image 1: 2"],
    }
    assert (structure.listed_images, structure.listed_annotations) == (1, 4)


def test_id_of_several_files() -> None:
    content = coco([1, 1, 2], [1], [(1, 1), (2, 1)])
    structure, samples = read(content)
    assert connections(structure) == [("c.png", "A")]
    assert samples == {"ambiguous_image": ["a.png: id 1", "b.png: id 1"]}
    assert structure.listed_images == 3


def test_text_of_an_ambiguous_id_is_not_taken_for_it() -> None:
    structure, _ = read(coco([1, 1, "1"], [1], [(1, 1), ("1", 1)]))
    assert connections(structure) == [("c.png", "A")]


def test_image_that_is_listed_again_is_one_image() -> None:
    content = coco([1], [1], [(1, 1)])
    content["images"] *= 2
    structure, samples = read(content)
    assert (len(structure.images), structure.listed_images, samples) == (1, 1, {})


def test_invalid_images_and_categories() -> None:
    content = coco([1, 2], [1], [(1, 1), (2, 1)])
    del content["images"][0]["file_name"]
    content["images"].append({"file_name": "d.png"})
    content["categories"].append({"name": "D"})
    structure, samples = read(content)
    assert connections(structure) == [("b.png", "A")]
    assert samples == {
        "invalid_category": ["id None, name 'D'"],
        "invalid_image": ["id 1, file_name None", "id None, file_name 'd.png'"],
    }
    assert structure.listed_images == 3


def test_classes_of_the_same_name_are_kept_apart() -> None:
    content = coco([1], [3, 7], [(1, 7)])
    content["categories"][1]["name"] = "A"
    structure, samples = read(content)
    assert [c["name"] for c in structure.categories] == ["A (id 3)", "A (id 7)"]
    assert connections(structure) == [("a.png", "A (id 7)")]
    assert samples == {"same_name": ["A (id 3)", "A (id 7)"]}


def test_class_with_two_names() -> None:
    assert read(coco([], [1, 1], []))[1] == {"ambiguous_category": ["1: B"]}


@pytest.mark.parametrize(
    ("name", "shown"),
    [(None, "4"), ("", "4"), (5, "5"), ("a\nb", "a\\nb"), ("\ud800", "\\ud800"), ("é", "é")],
)
def test_names_of_classes_are_printable(name: Any, shown: str) -> None:
    content = coco([], [4], [])
    content["categories"][0]["name"] = name
    assert read(content)[0].categories[0]["name"] == shown


def test_repeated_ids_of_annotations() -> None:
    content = coco([1], [1], [(1, 1)] * 4)
    for annotation, value in zip(content["annotations"], (7, 7, None, None), strict=True):
        annotation["id"] = value
    structure, samples = read(content)
    assert len(structure.annotations) == 4
    assert samples == {"duplicate_ids": ["annotation 7"]}


def test_original_ids_of_the_file_are_not_taken_for_ids() -> None:
    content = coco([1, 2], [1, 2], [(1, 1), (2, 2)])
    for entry in (*content["images"], *content["categories"]):
        entry["original_id"] = 2
    assert connections(read(content)[0]) == [("a.png", "A"), ("b.png", "B")]


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (None, "no list 'images'"),
        ([], "no list 'images'"),
        ({"images": []}, "no list 'annotations'"),
        ({"images": [], "annotations": [], "categories": {}}, "no list 'categories'"),
        ({"images": [7], "annotations": [], "categories": []}, "'images' contains 7"),
        ({"images": [None], "annotations": [], "categories": []}, "'images' contains null"),
    ],
)
def test_content_that_is_not_coco(content: Any, facts: str) -> None:
    with pytest.raises(ConfigError, match=rf"^x\.json is not in COCO format: .*{facts}$"):
        read(content)


def test_names_in_findings() -> None:
    assert name_of({"id": 3, "image_id": "x"}) == "annotation 3 of image 'x'"
    assert name_of({"id": "a"}, "b.png") == "annotation 'a' of b.png"
    assert name_of({"id": 3, "source": "a.txt:7"}, "b.png") == "a.txt:7"
    assert summary_of(map(str, range(9)), limit=3) == "0, 1, 2, …"
    assert summary_of(["a"]) == "a"
