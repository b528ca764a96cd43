"""Files and arguments of any content are used rightly, or refused in one line.

``D2TIMM_FUZZ=100 python -m pytest tests/test_fuzz.py`` tries so many inputs of each of the six kinds; by
default it is a few. What "rightly" means is checked for each kind: nothing may be wrong without a word.
"""

# ruff: noqa: PT017

from __future__ import annotations

import copy
import io
import json
import math
import os
import random
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import CocoFiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import d2timm
from d2timm import ConfigError, get_config
from d2timm.cli import main
from d2timm.config.overrides import apply_overrides
from d2timm.data.catalog import check_split, checked_split, findings_of, forget
from d2timm.data.checks.findings import SKIPPED
from d2timm.runs.record import FILE, Record
from d2timm.runs.status import read_runs
from d2timm.utils.images import read_image

pytestmark = pytest.mark.timeout(3600)

INPUTS = int(os.environ.get("D2TIMM_FUZZ", "8"))
MOST_SECONDS = 30

fuzz = settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
    derandomize=True,
)

#: Values that do not belong where they are put
ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        10**6,
        10**30,
        10**400,
        1e308,
        math.nan,
        math.inf,
        0.5,
        "",
        "x",
        "-1",
        "1e3",
        "\x1b[2J\x07",
        "é\u202e",
    ),
    *(
        [],
        [None],
        [[]],
        {},
        {"a": 1},
        "???",
        "${nope}",
        "${model}",
        "${oc.env:HOME}",
        "../../x",
        "/etc/passwd",
    ),
    *({"_target_": "os.system", "command": "touch PWNED"}, {"_target_": "torch.nn.ReLU"}, "a" * 5000, "\0"),
    *("9" * 5000, "[" * 500 + "]" * 500, "{a:" * 200 + "}" * 200, "(" * 300, "'" * 999),
]


@contextmanager
def refused_in_one_line() -> Iterator[None]:
    """Let a block succeed or raise a ConfigError of one line, in time."""
    begin = time.monotonic()
    try:
        yield
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
    finally:
        assert not Path("PWNED").exists(), "code was run"
        assert time.monotonic() - begin < MOST_SECONDS, "it hangs"


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree of dicts and lists."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def mutations(draw: Any, tree: Any, most: int = 3) -> Any:
    """A tree in which some values are odd, missing, or at another place."""
    tree = copy.deepcopy(tree)
    odd = st.sampled_from(ODD).map(copy.deepcopy)  # a value that is put in may be changed in turn
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(sorted(places(tree), key=repr)))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        what = draw(st.sampled_from(["set", "set", "set", "delete", "repeat", "add"]))
        if what == "delete":
            del parent[path[-1]]
        elif what == "repeat" and isinstance(parent, list):
            parent.append(parent[path[-1]])
        elif what == "add" and isinstance(parent, dict):
            parent["no_such_key"] = draw(odd)
        else:
            parent[path[-1]] = draw(odd)
        if not list(places(tree)):
            break
    return tree


@st.composite
def damages(draw: Any, data: bytes) -> bytes:
    """Bytes of which some are others, missing or doubled."""
    damaged = bytearray(data)
    rng = random.Random(draw(st.integers(0, 2**32)))
    way = draw(st.sampled_from(["flip", "flip", "head", "cut", "insert", "other"]))
    if way in ("flip", "head"):
        for _ in range(draw(st.integers(1, 30))):
            damaged[rng.randrange(min(len(damaged), 600) if way == "head" else len(damaged))] = rng.randrange(
                256
            )
    elif way == "cut":
        del damaged[rng.randrange(len(damaged)) :]
    elif way == "insert":
        damaged[rng.randrange(len(damaged)) : 0] = rng.randbytes(draw(st.integers(1, 99)))
    else:
        return draw(
            st.sampled_from([b"", b"\0" * 99, b"<html>", b"\xff\xfe", b"[" * 10**5, b"{", b"\x80\x04."])
        )
    return bytes(damaged)


@pytest.fixture
def run_folder(trained_once: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained_once.folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def trained_once(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    """A run of Faster R-CNN of two iterations."""
    from d2timm.engine.process import run

    folder = tmp_path_factory.mktemp("fuzz") / "run"
    run(tiny("faster_rcnn_timm.py", folder, "train.max_iter=2"))
    return Namespace(folder=folder)


def data_of(files: CocoFiles) -> Any:
    return apply_overrides(get_config("mask_rcnn_timm.py"), [*files.overrides, "data.name=custom"]).data


def check_dataset(data: Any, raw_objects: int) -> None:
    """Each object of a file is learnt or reported, and so is each box that leaves its image."""
    check_split(data, "train", ("bbox",))
    checked, findings = checked_split(data, "train"), findings_of(data, "train")
    assert checked is not None
    content = checked.coco
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    beyond = 0
    for annotation in content["annotations"]:
        box, size = annotation["bbox"], sizes[annotation["image_id"]]
        assert all(map(math.isfinite, box))
        assert all(min(box[i] + box[i + 2], size[i]) > max(box[i], 0) for i in (0, 1)), "nothing is visible"
        beyond += any(box[i] < -1 or box[i] + box[i + 2] > size[i] + 1 for i in (0, 1))
    assert findings.counts.get("beyond_image", 0) == beyond
    missing = raw_objects - len(content["annotations"])
    reported = sum(findings.counts[kind] for kind in findings.of(SKIPPED))
    assert missing <= 0 or reported, "objects are missing without a word"


@fuzz
@given(st.data())
def test_annotation_files(
    small_coco: CocoFiles, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = small_coco.train_json.read_text()
    folder = tmp_path_factory.mktemp("json")
    file = folder / "train.json"
    if data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(mutations(json.loads(text)))))
    else:
        file.write_bytes(data.draw(damages(text.encode())))
    node = data_of(CocoFiles(file, small_coco.train_images, small_coco.val_json, small_coco.val_images))
    forget()
    with refused_in_one_line():
        try:
            raw = json.loads(file.read_bytes())
            objects = len(raw["annotations"]) if isinstance(raw, dict) else 0
        except (ValueError, TypeError, KeyError, RecursionError):
            objects = 0
        check_dataset(node, objects)


@fuzz
@given(st.data())
def test_configs(run_folder: Path, data: st.DataObject) -> None:
    file, original = run_folder / "config.yaml", (run_folder / "config.yaml").read_text()
    if data.draw(st.integers(0, 3)):
        tree = yaml.safe_load(original)
        part = data.draw(st.sampled_from(["model", "train", "data", "dataloader"]))
        tree[part] = data.draw(mutations(tree[part]))
        file.write_text(yaml.safe_dump(tree))
    else:
        file.write_bytes(data.draw(damages(original.encode())))
    try:
        with refused_in_one_line():
            predictor = d2timm.load(run_folder, device="cpu")
            (result,) = predictor([np.zeros((48, 64, 3), np.uint8)])
            boxes = result.pred_boxes.tensor
            assert torch.isfinite(boxes).all()
    finally:
        file.write_text(original)


@fuzz
@given(st.data())
def test_records(run_folder: Path, data: st.DataObject) -> None:
    file, original = run_folder / FILE, (run_folder / FILE).read_text()
    if data.draw(st.booleans()):
        file.write_text(json.dumps(data.draw(mutations(json.loads(original)))))
    else:
        file.write_bytes(data.draw(damages(original.encode())))
    try:
        with refused_in_one_line():
            (run,) = read_runs(run_folder.parent)
            assert run.reason.isprintable()
            if run.status != "unreadable":
                assert Record.read(run_folder) == run.record
        with refused_in_one_line():
            assert main(["report", str(run_folder.parent)]) in (0, 1, 2)
        with refused_in_one_line():
            d2timm.load(run_folder, device="cpu")
    finally:
        file.write_text(original)


@fuzz
@given(st.data())
def test_overrides(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    cfg = get_config("faster_rcnn_timm.py")
    from d2timm.config.lazy import to_plain

    keys = sorted(".".join(map(str, path)) for path in places(to_plain(cfg)))
    overrides = []  # of nodes, of values in them, and of items of lists
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from(keys))
        value = data.draw(st.sampled_from([v for v in ODD if not isinstance(v, dict)]) | st.text(max_size=9))
        overrides.append(f"{key}={value}")
    folder = tmp_path_factory.mktemp("overrides") / "run"
    small = ["data.name=shapes", "model.backbone.bottom_up.model_name=test_resnet"]
    capfd.readouterr()
    with refused_in_one_line():
        arguments = [*small, f"train.output_dir={folder}", *overrides]
        code = main(["train", "--config-file", "faster_rcnn_timm.py", "--dry-run", *arguments])
        lines = capfd.readouterr().err.splitlines()
        assert code in (0, 2)
        if code == 2:
            assert len([line for line in lines if line.startswith("error: ")]) == 1
        assert "Traceback" not in "".join(lines)
    assert not folder.exists()


@fuzz
@given(st.data())
def test_checkpoints(run_folder: Path, data: st.DataObject) -> None:
    file = run_folder / "model_final.pth"
    original = file.read_bytes()
    state = torch.load(io.BytesIO(original), weights_only=True)
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(damages(original)))
    else:
        for _ in range(data.draw(st.integers(1, 2))):
            weights = state["model"] if isinstance(state.get("model"), dict) else {}
            place = data.draw(st.sampled_from(["state", "weights"]))
            target = state if place == "state" or not weights else weights
            key = data.draw(st.sampled_from(sorted(map(str, target))))
            values = [v for v in ODD if not isinstance(v, dict)] + [
                torch.ones(2),
                torch.full((3, 3), math.nan),
            ]
            target[key] = data.draw(st.sampled_from(values))
        torch.save(state, file)
    try:
        with refused_in_one_line():
            model = d2timm.load(run_folder, device="cpu").model
            # what is loaded is what the file has, and what the run has saved
            expected = torch.load(io.BytesIO(original), weights_only=True)["model"]
            assert all(
                torch.equal(value, expected[name])
                for name, value in model.state_dict().items()
                if name in expected
            )
    finally:
        file.write_bytes(original)


@fuzz
@given(st.data())
def test_images(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"]))
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    file = tmp_path_factory.mktemp("images") / "a"
    file.write_bytes(data.draw(damages(buffer.getvalue())))
    with refused_in_one_line():
        pixels = read_image(file, "RGB", max_pixels=10**6)
        assert pixels.ndim == 3
        assert pixels.dtype == np.uint8
        with Image.open(file) as image:
            image.seek(0)
            if image.mode in ("RGB", "L", "P"):
                assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
