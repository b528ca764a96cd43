"""What only a look at all splits shows: files without annotations, and images that both splits have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...utils.pillow import BROKEN, image_suffixes, open_image
from .finder import visible_files

__all__ = ["groups", "near_duplicates", "unlabelled_files"]

DISTANCE = 4  # of 64 bits, by which the hashes of nearly equal images differ at most
SIDE = 64  # pixels to which a JPEG file is reduced while it is decoded, if it is larger by a power of two


def unlabelled_files(folders: Iterable[str], used: Sequence[str]) -> list[str]:
    """Images in the folders of a dataset that no split lists.

    Args:
        folders: the image folders; ``/`` stands for the folders of all images.
        used: absolute paths of all listed images.
    """
    roots = {folder for folder in folders if folder != "/"}
    if "/" in folders:
        roots |= {os.path.dirname(file) for file in used}
    found = {file for root in roots for file in visible_files(os.path.normpath(root)) if _is_image(file)}
    others = sorted(found.difference(map(os.path.normpath, used)))
    taken = set(map(os.path.realpath, used if others else ()))  # which is slow, and rarely needed
    return [file for file in others if os.path.realpath(file) not in taken]


def near_duplicates(train: Sequence[str], val: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of (validation image, training image) that are equal or look the same.

    Images are compared by a perceptual hash (pHash of the package imagehash): it is nearly the same after
    scaling, compression and small changes of brightness.

    Args:
        train: absolute paths of the training images.
        val: of the validation images.
    """
    hashes = _hash([*dict.fromkeys([*train, *val])])
    known = [file for file in train if file in hashes]
    if not known:
        return []
    table = np.stack([hashes[file] for file in known])
    pairs = []
    for file in (file for file in val if file in hashes):
        distances = np.bitwise_count(table ^ hashes[file]).sum(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] <= DISTANCE:
            pairs.append((file, known[nearest]))
    return pairs


def groups(files: Sequence[str]) -> list[int]:
    """A number for each image, which images that look the same share, also by way of others.

    Args:
        files: absolute paths of the images, compared as in ``near_duplicates``.
    """
    hashes = _hash([*dict.fromkeys(files)])
    known = [index for index, file in enumerate(files) if file in hashes]
    group = list(range(len(files)))
    if not known:
        return group

    def first(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    table = np.stack([hashes[files[index]] for index in known])
    for row, index in enumerate(known):
        distances = np.bitwise_count(table[:row] ^ table[row]).sum(axis=1)
        for other in np.flatnonzero(distances <= DISTANCE):
            one, two = sorted((first(index), first(known[other])))
            group[two] = one
    return [first(index) for index in range(len(files))]


def _hash(files: Sequence[str]) -> Mapping[str, NDArray[np.uint8]]:
    """The perceptual hash of each image as 8 bytes; images without any structure are left out."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        progress: Any = tqdm(
            pool.map(_hash_of, files),
            "Comparing images",
            len(files),
            unit=" images",
            delay=1,
            disable=None,
            leave=False,
        )
        return {file: value for file, value in zip(files, progress, strict=True) if value is not None}


def _hash_of(file: str) -> NDArray[np.uint8] | None:
    try:
        with open_image(file) as image:
            image.draft("L", (SIDE, SIDE))
            bits = imagehash.phash(image).hash.ravel()
    except BROKEN:
        return None  # which the check of the images reports
    if bits.sum() < 2:
        return None  # an image of one colour, which all others of one colour look like
    packed: NDArray[np.uint8] = np.packbits(bits)
    return packed


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in image_suffixes()
