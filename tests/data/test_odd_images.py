"""Image files and their names as cameras, tools and people leave them, and splits that are made of them."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.coco_edits import FIRST, Edit, drop, put
from helpers.odd_edits import (
    Expected,
    OddEdit,
    assert_becomes,
    both,
    cases_of,
    changed_image,
    exif,
    kept,
    named,
    rejected,
    renumbered,
    shared,
    train,
    with_keys,
)
from helpers.odd_sets import Coco, OddSet, write_photo
from PIL import Image

from d2timm.data import catalog

Cases = dict[str, tuple[OddEdit, Expected]]

LESS: dict[str, Any] = {"objects": (4, 4), "images": (2, 2)}  # one training image is left out
LESS_IN_VAL: dict[str, Any] = {"objects": (6, 2), "images": (3, 1)}


def swap_sides(coco: Coco) -> None:
    for image in coco["images"]:
        image["width"], image["height"] = image["height"], image["width"]


SIZES: Cases = {
    f"{value!r:.20}": (train(put("images", "width", value, FIRST)), expected)
    for expected, values in (
        (kept(), (60.0, "60", 59.6)),
        (kept(size_from_file=1), (None, 0, -60, math.nan, "abc", [], True, 10**400)),
        (kept(**LESS, other_size=1), (61, 6)),
    )
    for value in values
}
SIZES |= {
    "missing": (both(drop("images", "width")), kept(size_from_file=(3, 2))),
    "missing height": (train(drop("images", "height", FIRST)), kept(size_from_file=1)),
    "swapped": (
        both(swap_sides),
        rejected("more than half of the images .*: 2 of 3; .*another size.*1.png: 40x60 in the annotations"),
    ),
}

ORIENTATIONS: Cases = {}
for number in range(2, 9):
    turns = number > 4  # width and height are swapped
    for size in ("shown", "stored", "none"):
        for coordinates in ("shown", "stored"):
            known = turns or coordinates == "shown"  # otherwise nothing shows the orientation
            found = {"stored_orientation": (3, 2)} if turns and coordinates == "stored" else {}
            if turns and (size, coordinates) == ("stored", "shown"):
                found |= {"stored_size": (3, 2)}
            if size == "none":
                found |= {"size_from_file": (3, 2)}
            ORIENTATIONS[f"{number}, size {size}, objects {coordinates}"] = (
                exif(number, size, coordinates, (60, 40)),
                kept(**found, exact=known, notes="" if turns else "ambiguous_orientation"),
            )
ORIENTATIONS |= {
    f"square {number}": (exif(number, shape=(50, 50)), kept(notes="ambiguous_orientation"))
    for number in (3, 6)
}
ORIENTATIONS |= {
    "square among others": (exif(6, coordinates="stored", size="stored"), kept(stored_orientation=(3, 2))),
    "run lengths, stored": (exif(6, "stored", "stored", mask="rle"), kept(stored_orientation=(3, 2))),
    "run lengths alone": (
        exif(8, "none", "stored", (60, 40), mask="rle", boxes=False),
        kept(stored_orientation=(3, 2), size_from_file=(3, 2), box_from_mask=(6, 4)),
    ),
    "polygons alone": (
        exif(5, "none", "stored", (60, 40), boxes=False),
        kept(stored_orientation=(3, 2), size_from_file=(3, 2), box_from_mask=(6, 4)),
    ),
    "boxes alone": (
        exif(7, "stored", "stored", mask="none"),
        kept(masks=(0, 0), stored_orientation=(3, 2), other="no usable segmentation"),
    ),
    **{
        f"{suffix}, {coordinates}": (
            exif(6, coordinates, coordinates, suffix=suffix),
            kept(**{"stored_orientation": (3, 2)} if coordinates == "stored" else {}),
        )
        for suffix in (".tif", ".webp")
        for coordinates in ("shown", "stored")
    },
}


def cut(file: Path) -> None:
    """Remove the last two fifths."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 5])


def append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + bytes(100))


def link(file: Path) -> None:
    file.rename(file.with_name("real.png"))
    file.symlink_to("real.png")


def replaced(content: bytes, suffix: str = ".jpg") -> OddEdit:
    return changed_image(lambda file: file.write_bytes(content), suffix)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(content)


def replace_by(target: str) -> OddEdit:
    return changed_image(lambda file: (file.unlink(), file.symlink_to(target)))


FILES: Cases = {
    **{
        f"cut {suffix}": (changed_image(cut, suffix), kept(**LESS, truncated_image=1))
        for suffix in (".png", ".tif", ".gif", ".bmp")
    },
    **{
        f"cut {suffix}": (changed_image(cut, suffix), kept(**LESS, unreadable_image=1))
        for suffix in (".jpg", ".webp")
    },
    **{
        f"padded {suffix}": (changed_image(append, suffix), kept(exact=suffix == ".png"))
        for suffix in (".png", ".jpg", ".gif")
    },
    "missing": (changed_image(Path.unlink), kept(**LESS, missing_image=1)),
    "missing in val": (changed_image(Path.unlink, split="val"), kept(**LESS_IN_VAL, missing_image=(0, 1))),
    "two missing": (
        changed_image(Path.unlink, count=2),
        rejected(
            "more than half of the images cannot be used.*: 2 of 3; images that do not exist .*1.png; 2.png"
        ),
    ),
    "all missing": (changed_image(Path.unlink, count=3), rejected("no usable images.*: 3 are listed")),
    "all missing in val": (
        changed_image(Path.unlink, split="val", count=2),
        rejected("data.val_json=.*no usable images"),
    ),
    "empty": (replaced(b""), kept(**LESS, unreadable_image=1)),
    "text": (replaced(b"<html>404</html>"), kept(**LESS, unreadable_image=1)),
    "pointer of Git LFS": (
        replaced(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n"),
        kept(**LESS, unreadable_image=1),
    ),
    "folder": (changed_image(lambda file: (file.unlink(), file.mkdir())), kept(**LESS, unreadable_image=1)),
    "broken link": (replace_by("nothing"), kept(**LESS, missing_image=1)),
    "link to itself": (replace_by("1.png"), kept(**LESS, missing_image=1)),
    "link": (changed_image(link), kept()),
    "wrong checksum": (changed_image(flip_a_bit), kept(**LESS, unreadable_image=1)),
    "PNG named JPEG": (named("{}.jpg"), kept()),
    "one above max_pixels": (with_keys(max_pixels=2400), kept(**LESS, too_large_image=1)),
    "all above max_pixels": (
        with_keys(max_pixels=100),
        rejected("no usable images.*above data.max_pixels.*60x40"),
    ),
    "max_pixels as text": (with_keys(max_pixels="5"), rejected("^data.max_pixels=5: ")),
    "on_error=stop": (
        lambda odd: (with_keys(on_error="stop")(odd), changed_image(Path.unlink)(odd)),
        rejected(
            "^data.train_json=.*: images that do not exist .*1.png; data.on_error=skip leaves them out$"
        ),
    ),
    "on_error=stop, nothing wrong": (with_keys(on_error="stop"), kept()),
    "on_error=ignore": (
        with_keys(on_error="ignore"),
        rejected("^data.on_error=ignore: must be skip or stop$"),
    ),
}


def saved(mode: str, suffix: str, **options: Any) -> OddEdit:
    """Save the training images in another mode and format."""

    def edit(odd: OddSet) -> None:
        for image in odd.train["images"]:
            pixels = Image.open(odd.images / image["file_name"]).convert("RGB")
            deep = {"I;16": np.uint16, "F": np.float32}.get(mode)
            image["file_name"] = image["file_name"].replace(".png", suffix)
            changed = (
                Image.fromarray(np.asarray(pixels.convert("L")).astype(deep))
                if deep
                else pixels.convert(mode)
            )
            changed.save(odd.images / image["file_name"], **options)

    return edit


def animate(odd: OddSet) -> None:
    file = odd.images / "1.png"
    with Image.open(file) as image:
        image.convert("RGB").save(file.with_suffix(".gif"), save_all=True, append_images=[image.rotate(180)])
    odd.train["images"][0]["file_name"] = "1.gif"


MODES: Cases = {
    f"{mode} {suffix}": (
        saved(mode, suffix),
        kept(exact=False, notes="high_depth" if mode in ("I;16", "F") else ""),
    )
    for mode, suffix in (
        *(("L", ".png"), ("P", ".png"), ("P", ".gif"), ("1", ".png"), ("LA", ".png"), ("RGBA", ".png")),
        *(
            ("CMYK", ".jpg"),
            ("CMYK", ".tif"),
            ("YCbCr", ".jpg"),
            ("I;16", ".png"),
            ("I;16", ".tif"),
            ("F", ".tif"),
        ),
    )
}
MODES["animation"] = animate, kept(exact=False, notes="animation")

NFC, NFD = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))


def two_folders(odd: OddSet) -> None:
    """``a/x.png`` and ``b/x.png``, of which the second does not exist."""
    for folder, image in zip("ab", odd.train["images"], strict=False):
        (odd.images / folder).mkdir()
        (odd.images / image["file_name"]).rename(odd.images / folder / "x.png")
        image["file_name"] = f"{folder}/x.png"
    (odd.images / "b" / "x.png").unlink()


def without_second_folder(odd: OddSet) -> None:
    two_folders(odd)
    (odd.images / "b").rmdir()


def flat(odd: OddSet) -> None:
    without_second_folder(odd)
    (odd.images / "a" / "x.png").rename(odd.images / "x.png")


def unnamed(value: Any, kind: str) -> tuple[OddEdit, Expected]:
    return train(put("images", "file_name", value, FIRST)), kept(**LESS, **{kind: 1})


def listed_twice(odd: OddSet) -> None:
    odd.train["images"].append({**odd.train["images"][0], "id": 9})
    odd.train["annotations"].append({**odd.train["annotations"][0], "id": 99, "image_id": 9})


NAMES: Cases = {
    **{
        f"{written!r} for {on_disk or written!r}": (named(written, on_disk), kept(moved_image=1))
        for written, on_disk in (
            *(
                ("sub\\{}", "sub/{}"),
                ("C:\\Users\\me\\{}", "{}"),
                ("/home/me/images/{}", "{}"),
                ("train/{}", "{}"),
            ),
            *(("https://host/images/{}", "{}"), (" {} ", "{}"), ("{}", " {}"), ("{}", "deep/below/{}")),
            *(("PHOTO.PNG", "photo.png"), (NFC, NFD), (NFD, NFC)),
        )
    },
    **{
        f"{written!r}": (named(written, on_disk), kept())
        for written, on_disk in (
            *(
                ("deep/below/{}", ""),
                ("{root}/{}", "{}"),
                ("./{}", "{}"),
                ("../train/{}", "{}"),
                ("a//{}", "a/{}"),
            ),
            *(
                ("my photo  (1).png", ""),
                ("写真 é ß.png", ""),
                ("a#b&c=d,e[f]'g\"%20$.png", ""),
                ("a\nb.png", ""),
            ),
            *((".hidden.png", ""), ("photo", ""), ("5", "")),
        )
    },
    "all with backslashes": (named("sub\\{}", "sub/{}", count=3), kept(moved_image=3)),
    "number": (lambda odd: (named("5")(odd), odd.train["images"][0].update(file_name=5)), kept()),
    **{f"{value!r:.20}": unnamed(value, "invalid_image") for value in (None, "", ["1.png"], {})},
    **{
        f"{value!r:.20}": unnamed(value, "missing_image")
        for value in ("\ud800.png", "a\0.png", "a" * 300, "..png")
    },
    "the folder": unnamed(".", "unreadable_image"),
    "image of another folder": (two_folders, kept(**LESS, missing_image=1)),
    "image of a folder that is missing": (without_second_folder, kept(**LESS, missing_image=1)),
    "one file for two names": (flat, rejected("images that do not exist .*: 2, a/x.png; b/x.png")),
    "two files for one name": (
        lambda odd: (named("x/a.png", "p/a.png")(odd), write_photo(odd.images / "q" / "a.png", (60, 40))),
        kept(**LESS, missing_image=1),
    ),
    "listed twice": (listed_twice, kept((7, 4), (4, 2), notes="repeated_file")),
    "listed twice, moved": (
        lambda odd: (named("sub\\{}", "sub/{}")(odd), listed_twice(odd)),
        kept((7, 4), (4, 2), moved_image=2, notes="repeated_file"),
    ),
    "folder is missing": (
        with_keys(train_images="nothing"),
        rejected("data.train_images=.*nothing: no such folder"),
    ),
    "annotations are missing": (
        with_keys(train_json="nothing"),
        rejected("data.train_json=.*nothing: no such file"),
    ),
    "annotations are not set": (with_keys(train_json=None), rejected("^data.train_json must be set")),
    "image folder of train for val": (
        lambda odd: with_keys(val_images=str(odd.images))(odd),
        kept(),
    ),
}


def only(first: int, edit: Edit = lambda coco: None) -> Edit:
    """Objects in the images from this number on only."""

    def apply(coco: Coco) -> None:
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] >= first]
        edit(coco)

    return apply


def one_blue(coco: Coco) -> None:
    """All objects but one are red."""
    for annotation in coco["annotations"][2:]:
        annotation["category_id"] = 1


NO_MASKS = r"30% of the images, held out by data.val_share\) has boxes but no usable segmentation"
SPLITS: Cases = {
    **{
        f"{share} of {count}": (shared(share, count), kept((2 * left, 2 * held), (left, held)))
        for share, count, left, held in (
            *((0.01, 2, 1, 1), (0.01, 10, 9, 1), (0.2, 2, 1, 1), (0.2, 3, 2, 1), (0.2, 10, 8, 2)),
            *((0.5, 3, 1, 2), (0.5, 10, 5, 5), (0.8, 10, 2, 8), (0.99, 2, 1, 1), (0.99, 10, 1, 9)),
        )
    },
    **{
        f"{value!r}": (shared(value), rejected(f"^data.val_share={value}: must be a number > 0 and < 1"))
        for value in (0, 1, -0.5, 1.5, 2, True, math.nan, "0.2", "20%")
    },
    "one image": (shared(0.5, 1), rejected("^data.val_share=0.5: 1 images with objects cannot be split")),
    "one image with objects": (shared(0.5, 10, only(10)), rejected("1 images with objects cannot be split")),
    "two images with objects": (shared(0.01, 10, only(9)), kept((2, 2), (9, 1), notes="empty_image")),
    "two images with objects, most held out": (
        shared(0.99, 10, only(9)),
        kept((2, 2), (1, 9), notes="empty_image"),
    ),
    "half of them empty": (shared(0.4, 10, only(6)), kept((6, 4), (6, 4), notes="empty_image")),
    "crowds": (
        shared(0.3, 10, lambda coco: [a.update(iscrowd=1) for a in coco["annotations"][:16]]),
        kept((2, 2), (7, 3), notes="crowd_object"),
    ),
    "class of one image": (shared(0.3, 10, one_blue), kept((14, 6), (7, 3), exact=False)),
    "masks in few": (
        shared(0.3, 10, drop("annotations", "segmentation", slice(2, None))),
        kept((14, 6), (7, 3), masks=(2, 0), other=NO_MASKS),
    ),
    "text ids": (shared(0.3, 10, renumbered(str, str)), kept((14, 6), (7, 3), odd_ids=12)),
    "beside a validation set": (
        with_keys(val_share=0.2),
        rejected("there is a validation split already, data.val_json="),
    ),
    "without a training set": (
        with_keys(val_share=0.2, train_json=None, train_images=None),
        rejected("there is a validation split already"),
    ),
    "training set only": (
        with_keys(val_json=None, val_images=None),
        Expected(images=(3,), objects=(6,), masks=(6,)),
    ),
    "validation set only": (
        with_keys(train_json=None, train_images=None),
        Expected(images=(2,), objects=(4,), masks=(4,)),
    ),
}

KINDS = {
    **{"size": SIZES, "EXIF": ORIENTATIONS, "file": FILES, "mode": MODES, "name": NAMES, "split": SPLITS},
}


pytestmark = pytest.mark.usefixtures("forgetting")


@pytest.mark.parametrize(("edit", "expected"), cases_of(KINDS))
def test_images_are_rejected_or_all_are_used_or_counted(
    edit: OddEdit, expected: Expected, tmp_path: Path
) -> None:
    assert_becomes(edit, expected, tmp_path)


def test_same_seed_holds_out_the_same_images(tmp_path: Path) -> None:
    held_out = []
    for number, seed in enumerate((0, 0, 1)):
        odd = OddSet(tmp_path / str(number))
        shared(0.4, 10, val_seed=seed)(odd)
        held_out.append({Path(entry["file_name"]).name for entry in catalog.dataset_dicts(odd.node(), "val")})
    assert held_out[0] == held_out[1] != held_out[2]
    assert all(len(names) == 4 for names in held_out)
