"""Every timm model is a backbone; the committed table of them is right.

A sample is checked unless ``--zoo PATTERN`` names models, or the code of the backbone room has changed since
the table was written; ``scripts/check_zoo.py`` checks all of them and writes the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import zoo_checks, zoo_tables
from torch import Tensor, nn

from d2timm import TimmBackbone
from d2timm.backbone import zoo_table
from d2timm.backbone.description import on_meta

TINY = ["test_resnet", "test_vit", "test_convnext", "test_coatnet"]  # each by another route

Wrong = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    pattern = metafunc.config.getoption("--zoo", None)
    if "meta_name" in metafunc.fixturenames:
        metafunc.parametrize("meta_name", zoo_tables.select(pattern))
    if "cpu_name" in metafunc.fixturenames:
        rows = zoo_table.read_rows()
        names = TINY if pattern is None else zoo_tables.smallest_of_each_module(rows, pattern)
        metafunc.parametrize("cpu_name", names)


@pytest.fixture(scope="module")
def committed() -> dict[str, dict[str, Any]]:
    return {row["model_name"]: row for row in zoo_table.read_rows()}


def row(model_name: str, **values: Any) -> dict[str, Any]:
    """A row of the table."""
    usual = {
        "model_name": model_name,
        "kind": "pyramid",
        "route": "any size",
        "indices": [1, 2, 3, 4],
        "channels": [32, 48, 192, 96],
        "native_strides": [4, 8, 16, 32],
        "parameters": 372_688,
        "multiply_adds": 1_049_100_288,
    }
    return {**usual, **values}


# All models, or a sample


def test_model_on_meta(
    meta_name: str,
    committed: dict[str, Any],
    record_property: Callable[[str, object], None],
    request: pytest.FixtureRequest,
) -> None:
    checked = zoo_checks.check_on_meta(meta_name)
    record_property("zoo_row", json.dumps(checked))
    if not request.config.getoption("--write-zoo", False):
        assert checked == committed[meta_name]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_model_on_cpu(cpu_name: str, committed: dict[str, Any]) -> None:
    backbone = zoo_checks.check_on_cpu(cpu_name)
    assert str(backbone.spec.input_spec) == committed[cpu_name]["route"]
    assert sum(p.numel() for p in backbone.parameters()) == committed[cpu_name]["parameters"]


def test_committed_table_has_every_model(committed: dict[str, Any]) -> None:
    assert zoo_table.table_version() == timm.__version__
    assert list(committed) == timm.list_models()


def test_sample_has_each_route() -> None:
    routes = {row["route"].partition(" to ")[0] for row in zoo_table.read_rows()}
    sampled = [row for row in zoo_table.read_rows() if row["model_name"] in zoo_tables.sample()]
    assert {row["route"].partition(" to ")[0] for row in sampled} == routes


def test_row_of_a_known_model() -> None:
    assert zoo_checks.check_on_meta("test_resnet") == row("test_resnet")


# The checks find what is wrong


class WithSpareParameter(TimmBackbone):
    """Has a parameter that no output depends on."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.model.spare = nn.Parameter(torch.zeros(3))


class WithSpareBuffer(TimmBackbone):
    """Has a buffer that no computation uses."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.model.register_buffer("spare", torch.zeros(3))


class WithInfiniteGradients(TimmBackbone):
    """Has finite outputs whose gradients are not."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = super().forward(x)
        return {name: (y - y.detach()).abs().sqrt() for name, y in outputs.items()}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (WithSpareParameter, "model.spare gets no gradient"),
        (WithSpareBuffer, "nothing uses model.spare"),
        (WithInfiniteGradients, "the gradient of .* is not finite"),
    ],
)
def test_model_that_breaks_the_contract_on_the_cpu(
    kind: type[TimmBackbone], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo_checks, "TimmBackbone", kind)
    with pytest.raises(AssertionError, match=reason):
        zoo_checks.check_on_cpu("test_resnet")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda maps: dict(reversed(maps.items())), "outputs"),
        (lambda maps: {k: v for k, v in maps.items() if k != "res4"}, "outputs"),
        (lambda maps: {**maps, "res4": maps["res4"][:, 1:]}, "res4 is"),
        (lambda maps: {**maps, "res4": maps["res4"][..., 1:]}, "res4 is"),
        (lambda maps: {**maps, "res4": maps["res4"].repeat(2, 1, 1, 1)}, "res4 is"),
        (lambda maps: {**maps, "res4": maps["res4"] / 0}, "res4 is not finite"),
    ],
)
def test_outputs_that_break_the_contract(wrong: Wrong, reason: str) -> None:
    backbone, size = on_meta("test_resnet"), (97, 131)
    maps = {
        name: torch.zeros(1, shape.channels, -(-97 // shape.stride), -(-131 // shape.stride))
        for name, shape in backbone.output_shape().items()
    }
    zoo_checks.check_outputs(backbone, maps, 1, size)
    with pytest.raises(AssertionError, match=reason):
        zoo_checks.check_outputs(backbone, wrong(maps), 1, size)


@pytest.mark.parametrize("model_name", ["test_resnet", "pit_ti_224"])
def test_every_parameter_needs_a_stage(model_name: str) -> None:
    backbone = on_meta(model_name)
    zoo_checks.check_stages(backbone)
    backbone.stage_of_parameters = lambda coarse: {"conv1.0.weight": 0}
    with pytest.raises(AssertionError, match="parameters without a stage"):
        zoo_checks.check_stages(backbone)
    backbone.stage_of_parameters = lambda coarse: {
        name: 2 * i for i, (name, _) in enumerate(backbone.model.named_parameters())
    }
    with pytest.raises(AssertionError, match="numbered with gaps"):
        zoo_checks.check_stages(backbone)


# The table


def test_table_is_read_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("test_vit", kind="one stride", route="padding to multiples of 16"), row("test_resnet")]
    zoo_tables.write(rows, tmp_path / "zoo.json", tmp_path)
    monkeypatch.setattr(zoo_table, "FILE", tmp_path / "zoo.json")
    assert zoo_table.read_rows() == rows[::-1]  # in timm's order
    assert zoo_table.table_version() == timm.__version__
    assert zoo_tables.recorded_fingerprint() == zoo_tables.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoo.json", "zoo.md"]


def test_page_has_a_line_for_each_model_and_route(tmp_path: Path) -> None:
    rows = [
        row("test_convnext"),
        row("test_nfnet", route="multi-size, padded to multiples of 32", native_strides=[14, 14, 17.5, 28]),
        row("test_resnet", route="multi-size"),
        row("test_vit", route="resizing to 224x224", parameters=5_250_000),
    ]
    zoo_tables.write(rows, tmp_path / "zoo.json", tmp_path)
    text = (tmp_path / "zoo.md").read_text()
    assert text.startswith(f"# The zoo: timm {timm.__version__}\n")
    lines = text.splitlines()
    numbers = "| 32 48 192 96 | 14 14 17.5 28 | 0.37 | 1.05 |"
    assert "| test_convnext | pyramid | any size | 32 48 192 96 | 4 8 16 32 | 0.37 | 1.05 |" in lines
    assert f"| test_nfnet | pyramid | multi-size, padded to multiples of 32 {numbers}" in lines
    assert lines[-1].startswith("| test_vit | pyramid | resizing to 224x224 |")
    assert "| 5.25 |" in lines[-1]
    routes = lines[lines.index("| route | models |") + 2 :][:3]
    assert routes == ["| multi-size | 2 |", "| any size | 1 |", "| resizing | 1 |"]


def test_fingerprint_follows_code_and_not_words(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Old words."""\nSIDE = 32  # pixels\n')
    before = zoo_tables.fingerprint(tmp_path)
    module.write_text('"""New words."""\n\nSIDE = 32\n')
    assert zoo_tables.fingerprint(tmp_path) == before
    module.write_text("SIDE = 33\n")
    assert zoo_tables.fingerprint(tmp_path) != before


def test_all_models_are_checked_when_the_code_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo_tables.select("test_vit") == ["test_vit"]
    monkeypatch.setattr(zoo_tables, "recorded_fingerprint", lambda: "another")
    assert zoo_tables.select(None) == timm.list_models()
    monkeypatch.setattr(zoo_tables, "recorded_fingerprint", zoo_tables.fingerprint)
    assert zoo_tables.select(None) == zoo_tables.sample()


def test_smallest_of_each_module() -> None:
    sizes = {
        "resnet18": 11,
        "resnet10t": 5,
        "test_resnet": 1,
        "vit_tiny_patch16_224": 6,
        "vit_small_patch16_224": 22,
    }
    rows = [row(name, parameters=n) for name, n in sizes.items()]
    assert zoo_tables.smallest_of_each_module(rows) == ["test_resnet", "vit_tiny_patch16_224"]
    assert zoo_tables.smallest_of_each_module(rows, "resnet1*") == ["resnet10t"]
    assert zoo_tables.smallest_of_each_module(rows, "vgg11") == []
