"""Image files of every kind give the pixels that they show."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data import detection_utils
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from d2timm import ConfigError
from d2timm.utils import images
from d2timm.utils.images import pixels_of_pil, read_draft, read_image
from d2timm.utils.once import Once
from d2timm.utils.pillow import image_suffixes

SIZE = (6, 8)  # (H, W)
ORIENTATION = 274  # EXIF tag
WHITE_IS_ZERO = {262: 0}  # TIFF tags


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def save(image: Image.Image, file: Path, **options: Any) -> Path:
    image.save(file, **options)
    return file


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_files_are_read_as_detectron2_reads_them(
    mode: str, image_format: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    image = Image.fromarray(pixels).convert(mode)
    file = save(image, tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    read = read_image(file, image_format)
    assert read.shape == (*SIZE, 1 if image_format == "L" else 3)
    assert read.dtype == np.uint8
    assert np.array_equal(read, detection_utils.read_image(str(file), image_format))


def test_grey_images_of_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896], [65535, 128 * 257, 255 * 257]], np.uint16)
    for name in ("x.png", "x.tif"):
        file = save(Image.fromarray(values), tmp_path / name)
        assert read_image(file, "L")[..., 0].tolist() == [[0, 1, 128], [255, 128, 255]]
        assert (np.ptp(read_image(file, "RGB"), axis=2) == 0).all()


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped(pixels: np.ndarray, tmp_path: Path) -> None:
    opaque = np.dstack([pixels, np.full(SIZE, 255, np.uint8)])
    clear = np.dstack([pixels, np.zeros(SIZE, np.uint8)])
    assert np.array_equal(
        pixels_of_pil(Image.fromarray(clear), "RGB"), pixels_of_pil(Image.fromarray(opaque), "RGB")
    )
    palette = Image.fromarray(pixels).quantize(16)
    file = save(palette, tmp_path / "x.png", transparency=bytes(range(16)))
    assert np.array_equal(read_image(file, "RGB"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    orientation: int, suffix: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = save(Image.fromarray(pixels), tmp_path / f"x.{suffix}", exif=exif)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }[orientation]
    assert np.array_equal(read_image(file, "RGB"), upright)
    with Image.open(file) as image:
        assert np.array_equal(pixels_of_pil(image, "RGB"), upright)


def test_broken_exif_is_ignored(pixels: np.ndarray, tmp_path: Path) -> None:
    broken = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02\x01"
    file = save(Image.fromarray(pixels), tmp_path / "x.png", exif=broken)
    assert np.array_equal(read_image(file, "RGB"), pixels)
    exif = Image.Exif()
    exif[ORIENTATION] = 9  # not an orientation
    save(Image.fromarray(pixels), file, exif=exif)
    assert np.array_equal(read_image(file, "RGB"), pixels)


def test_premultiplied_and_lab_colours(pixels: np.ndarray, tmp_path: Path) -> None:
    grey = Image.fromarray(pixels[..., 0])
    assert np.array_equal(pixels_of_pil(grey.convert("LA").convert("La"), "L")[..., 0], pixels[..., 0])
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = Image.new("RGB", (8, 6), (200, 100, 50))
    file = save(ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB"), tmp_path / "x.tif")
    assert np.abs(read_image(file, "RGB").astype(int) - (200, 100, 50)).max() < 8
    assert read_image(file, "L").shape == (6, 8, 1)


@pytest.mark.parametrize("invert", [False, True])
def test_white_of_a_deep_tiff(invert: bool, tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535]], np.uint16)
    file = save(Image.fromarray(values), tmp_path / "x.tif", tiffinfo=WHITE_IS_ZERO if invert else {})
    assert read_image(file, "L").ravel().tolist() == ([255, 254, 0] if invert else [0, 1, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.5, 1, np.nan]), [0, 128, 255, 0]),
        (np.float32([0, 0.5, 200, np.nan]), [0, 0, 200, 0]),
        (np.float32([0, 257, 65535, 1]), [0, 1, 255, 0]),
        (np.float32([-1, 0, 1, np.inf]), [0, 128, 255, 255]),
        (np.int32([0, 1, 100, 255]), [0, 1, 100, 255]),
        (np.int32([0, 257, 300, 65535]), [0, 1, 1, 255]),
        (np.int32([-100, 0, 100, 100]), [0, 128, 255, 255]),
    ],
)
def test_integers_and_floats_of_32_bits(values: np.ndarray, expected: list[int], tmp_path: Path) -> None:
    file = save(Image.fromarray(values[None]), tmp_path / "x.tif")
    assert read_image(file, "L").ravel().tolist() == expected


def test_pgm_of_16_bits_is_scaled_by_its_format(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([200, 65535], ">u2").tobytes())
    assert read_image(tmp_path / "x.pgm", "L").ravel().tolist() == [1, 255]


def test_adobe_cmyk_jpegs_are_not_inverted(tmp_path: Path) -> None:
    file = save(Image.new("CMYK", (8, 6), (255, 0, 0, 0)), tmp_path / "x.jpg")  # cyan
    assert np.abs(read_image(file, "RGB").astype(int) - (0, 255, 255)).max() < 8


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_image_of_several_is_read_with_one_warning(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(images, "_several_images", Once())
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if suffix == "webp" else {}
    file = save(frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    for _ in range(2):
        assert np.array_equal(read_image(file, "RGB"), np.asarray(frames[0]))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(file) in caplog.text


def test_previews_of_a_photograph_are_no_animation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(images, "_several_images", Once())
    photograph, preview = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (16, 12), "blue")
    file = save(photograph, tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[preview])
    assert np.abs(read_image(file, "RGB")[0, 0].astype(int) - (255, 0, 0)).max() < 3
    assert not caplog.records


def test_size_limit_names_the_key(pixels: np.ndarray, tmp_path: Path) -> None:
    file = save(Image.fromarray(pixels), tmp_path / "x.png")
    assert np.array_equal(read_image(file, "RGB", max_pixels=48), pixels)
    with pytest.raises(ConfigError, match=r"x\.png: .*8x6 .*data\.max_pixels=48.*--max-pixels 48") as caught:
        read_image(file, "RGB", max_pixels=47)
    assert "\n" not in str(caught.value)


def test_limit_of_pillow_is_not_used(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(Image.fromarray(pixels), tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert np.array_equal(read_image(file, "RGB"), pixels)
    assert Image.MAX_IMAGE_PIXELS == 4


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_large_images_are_converted_in_strips(
    image_format: str, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(Image.fromarray(pixels), tmp_path / "x.png")
    whole = read_image(file, image_format)
    monkeypatch.setattr(images, "STRIP", 2 * SIZE[1] + 3)
    assert np.array_equal(read_image(file, image_format), whole)


def test_lack_of_memory_is_one_line(
    pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_converted", fail)
    with pytest.raises(ConfigError, match=r"x\.png: .*memory"):
        read_image(save(Image.fromarray(pixels), tmp_path / "x.png"), "RGB")


def encoded() -> list[bytes]:
    """A small image in every format that Pillow writes."""
    image = Image.fromarray(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3))
    files = []
    for suffix in sorted(image_suffixes()):
        file = io.BytesIO()
        with contextlib.suppress(KeyError, OSError, ValueError):
            image.save(file, format=Image.registered_extensions()[suffix])
            files.append(file.getvalue())
    return files


ENCODED = encoded()


@given(
    content=st.sampled_from(ENCODED),
    edits=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=6),
    share=st.floats(0, 1),
)
def test_damaged_files_are_read_or_rejected_in_one_line(
    content: bytes, edits: list[tuple[int, int]], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(content[: round(share * len(content))] if share < 0.5 else content)
    for place, value in edits:
        if place < len(damaged):
            damaged[place] = value
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(damaged)
    message = ""
    try:
        assert read_image(file, "RGB", max_pixels=10**6).shape[2] == 3
    except ConfigError as error:
        message = str(error)
    assert not message or message.startswith(f"{file}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda file: None, "No such file or directory"),
        (lambda file: file.mkdir(), "not a file"),
        (lambda file: file.write_text("text"), "Pillow does not know its format"),
        (lambda file: file.write_bytes(b""), "Pillow does not know its format"),
    ],
)
def test_broken_files_are_rejected(write: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    write(tmp_path / "x.jpg")
    with pytest.raises(ConfigError, match=rf"x\.jpg: .*{reason}"):
        read_image(tmp_path / "x.jpg", "RGB")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_truncated_file_is_rejected(suffix: str, pixels: np.ndarray, tmp_path: Path) -> None:
    file = save(Image.fromarray(np.tile(pixels, (20, 20, 1))), tmp_path / f"x.{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ConfigError, match=rf"x\.{suffix}: "):
        read_image(file, "RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("short_edge", "scale"), [(120, 1), (61, 1), (60, 2), (31, 2), (30, 4), (15, 8), (1, 8)]
)
def test_draft_is_upright_and_large_enough(
    tmp_path: Path, orientation: int, short_edge: int, scale: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    rows = np.linspace(0, 255, 120).astype(np.uint8)[:, None, None]
    file = tmp_path / "image.jpg"
    Image.fromarray(np.broadcast_to(rows, (120, 200, 3)).copy()).save(file, exif=exif, quality=95)
    whole = read_image(file, "RGB")
    pixels, size = read_draft(file, "RGB", 10**6, short_edge)
    assert size == whole.shape[:2]
    assert pixels.shape == (*(-(-side // scale) for side in size), 3)
    assert min(pixels.shape[:2]) >= short_edge
    means = cv2.resize(whole, pixels.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert abs(means - pixels).mean() < 3


def test_draft_of_another_format_is_the_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    read, size = read_draft(tmp_path / "image.png", "BGR", 10**6, 8)
    assert size == (64, 80)
    assert np.array_equal(read, pixels[..., ::-1])
