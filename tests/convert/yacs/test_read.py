"""Old configs are read safely, with the files they inherit from; errors fit a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm.convert.yacs.read import OldConfig, read
from d2timm.errors import ConfigError

MODEL = "MODEL: {BACKBONE: {NAME: build_test_resnet_fpn_backbone}}\n"


@pytest.fixture
def old(tmp_path: Path) -> Callable[..., OldConfig]:
    """Write a text to a file and read it, with opts."""

    def read_text(text: str, *opts: str) -> OldConfig:
        file = tmp_path / "old.yaml"
        file.write_text(text)
        return read(file, opts)

    return read_text


def test_values_defaults_and_keys_that_are_set(old: Callable[..., OldConfig]) -> None:
    config = old(
        MODEL
        + "SOLVER: {STEPS: '(60000, 80000)', BASE_LR: 1e-4, MAX_ITER: 40000}\nDATASETS:\n  TRAIN: ('a',)\n"
    )
    assert config["SOLVER.STEPS"] == [60000, 80000]  # a tuple in a string, as in detectron2's files
    assert config["SOLVER.BASE_LR"] == 1e-4
    assert config["DATASETS.TRAIN"] == ["a"]
    assert config["INPUT.FIXED_INPUT_SIZE"] is True  # detectron2_timm's default
    assert (config["SOLVER.WARMUP_ITERS"], config.defaults["SOLVER.STEPS"]) == (1000, [30000])
    different = {"MODEL.BACKBONE.NAME", "SOLVER.STEPS", "SOLVER.BASE_LR", "DATASETS.TRAIN"}
    assert {key for key, value in config.values.items() if value != config.defaults[key]} == different
    assert config.given == different | {"SOLVER.MAX_ITER"}  # set to its default


def test_opts_override_the_file_and_the_file_its_bases(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "base.yaml").write_text(MODEL + "SOLVER: {MAX_ITER: 1, BASE_LR: 0.5, GAMMA: 0.5}\n")
    (tmp_path / "other.yaml").write_text("SOLVER: {BASE_LR: 0.25, MOMENTUM: 0.5}\n")
    (tmp_path / "a" / "old.yaml").write_text(
        "_BASE_: [../base.yaml, ../other.yaml]\nSOLVER: {GAMMA: 0.2, STEPS: [1]}\n"
    )
    config = read(tmp_path / "a" / "old.yaml", ["SOLVER.STEPS", "(7, 8)"])
    assert [config[f"SOLVER.{key}"] for key in ("MAX_ITER", "BASE_LR", "MOMENTUM", "GAMMA")] == [
        1,
        0.25,
        0.5,
        0.2,
    ]
    assert config["SOLVER.STEPS"] == [7, 8]
    assert config["MODEL.BACKBONE.NAME"] == "build_test_resnet_fpn_backbone"
    assert {"SOLVER.STEPS", "SOLVER.MOMENTUM", "MODEL.BACKBONE.NAME"} <= config.given


@pytest.mark.parametrize(
    "base", ["../Base-RCNN-FPN.yaml", "../configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"]
)
def test_bases_may_be_configs_of_detectron2(old: Callable[..., OldConfig], base: str) -> None:
    config = old(f"_BASE_: {base}\nMODEL: {{BACKBONE: {{NAME: x}}}}\n")
    assert config["MODEL.RPN.IN_FEATURES"] == ["p2", "p3", "p4", "p5", "p6"]
    assert config["MODEL.BACKBONE.NAME"] == "x"
    assert config["MODEL.MASK_ON"] is ("mask" in base)


def test_keys_of_version_1_are_renamed(old: Callable[..., OldConfig]) -> None:
    config = old("VERSION: 1\nMODEL: {WEIGHT: w.pth, MASK_ON: true}\n")
    assert (config["MODEL.WEIGHTS"], config["MODEL.MASK_ON"]) == ("w.pth", True)
    assert {"MODEL.WEIGHTS", "MODEL.MASK_ON"} <= config.given


def test_repeated_keys_are_noted_and_the_last_counts(old: Callable[..., OldConfig]) -> None:
    config = old(MODEL + "INPUT: {FIXED_INPUT_SIZE: true}\nINPUT: {FIXED_INPUT_SIZE: false}\n")
    assert config.repeated == ("INPUT",)
    assert config["INPUT.FIXED_INPUT_SIZE"] is False


def test_code_in_a_file_is_not_executed(old: Callable[..., OldConfig], tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(ConfigError, match="line 2: only plain YAML"):
        old(MODEL + f'SEED: !!python/object/apply:pathlib.Path.touch ["{made}"]\n')
    assert not made.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not contain a config"),
        ("- 1\n", "does not contain a config"),
        ("MODEL: {\n", "is not YAML"),
        ("SOLVER: {BASE_LR: 0.1}\n", "has no MODEL"),
        (MODEL + "SOLVER: {BASE_LRR: 0.1}\n", r"key SOLVER\.BASE_LRR: did you mean SOLVER\.BASE_LR"),
        (MODEL + "SOLVR: {BASE_LR: 0.1}\nSEEED: 1\n", r"key SOLVR\.BASE_LR \(2 such keys\): did you mean"),
        (MODEL + "SOLVER: 3\n", "key SOLVER: "),
        (MODEL + "SEED: {A: 1}\n", r"key SEED\.A"),
        (MODEL + "SOLVER: {MAX_ITER: many}\n", r"SOLVER\.MAX_ITER"),
        (MODEL + "VERSION: 3\n", "VERSION=3: .*1 to 2"),
        (MODEL + "_BASE_: nowhere.yaml\n", "nowhere.yaml: no such file"),
        (MODEL + "_BASE_: old.yaml\n", "_BASE_ leads back"),
        (MODEL + "_BASE_: https://example.org/a.yaml\n", "only files are read"),
    ],
)
def test_invalid_files_are_errors_of_one_line(old: Callable[..., OldConfig], text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        old(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SEED"], "--opts SEED: give keys and values"),
        (["SEEDS", "1"], "--opts: .*key SEEDS: did you mean SEED"),
        (["SEED", "one"], "SEED"),
    ],
)
def test_opts_are_checked_like_the_file(old: Callable[..., OldConfig], opts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        old(MODEL, *opts)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"old\.yaml: no such file"):
        read(tmp_path / "old.yaml")


KEYS = ["MODEL", "BACKBONE", "SOLVER", "STEPS", "VERSION", "_BASE_", "INPUT", "x", 3]
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=TREES.map(lambda tree: str(tree).encode()) | st.binary(max_size=40))
def test_any_file_is_read_or_raises_a_config_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "wild.yaml"
    file.write_bytes(content)
    try:
        config = read(file)
    except ConfigError:
        return
    assert set(config.values) == set(config.defaults)
