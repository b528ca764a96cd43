"""Models are held against the contract; a run that was cut off goes on where it was."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from helpers import commands
from torch import Tensor, nn

from d2timm import ConfigError, TimmBackbone, zoo
from d2timm.backbone.description import on_meta

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_zoo.py"
TINY = ["test_resnet", "test_vit", "test_convnext", "test_coatnet"]  # each by a route of its own

Wrong = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def row(model_name: str, **values: Any) -> dict[str, Any]:
    """A row as a check gives it."""
    told = {
        "timm": timm.__version__,
        "model_name": model_name,
        "kind": "pyramid",
        "route": "any size",
        "indices": [1, 2, 3, 4],
        "channels": [32, 48, 192, 96],
        "native_strides": [4, 8, 16, 32],
        "parameters": 372_688,
        "multiply_adds": 1_049_100_288,
    }
    return {**told, **values}


def sample() -> list[dict[str, Any]]:
    """Of the committed table, the smallest model of each kind and route, and every hundredth."""
    rows = zoo.read_tables(SCRIPT.parents[1] / "docs")
    smallest: dict[tuple[str, str], dict[str, Any]] = {}
    for told in sorted(rows, key=lambda told: told["parameters"]):
        smallest.setdefault((told["kind"], told["route"].partition(" to ")[0]), told)
    return [*smallest.values(), *rows[::100]]


def remember(state: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of an earlier run."""
    state.parent.mkdir(parents=True)
    state.write_text("".join(json.dumps(told) + "\n" for told in rows))


def log(folder: Path, model_name: str) -> dict[str, Any]:
    """A check that remembers what it was asked, and does what ``folder`` says of the model."""
    with (folder / "asked").open("a") as asked:
        asked.write(f"{model_name}\n")
    if (folder / f"{model_name} raises").exists():
        raise ValueError("two\nlines")
    if (folder / f"{model_name} dies").exists():
        os._exit(1)
    return {"model_name": model_name, "parameters": 1}


# One model


@pytest.mark.parametrize("model_name", TINY)
def test_models_keep_the_contract_on_meta(model_name: str) -> None:
    told = zoo.check(model_name)
    assert "error" not in told
    backbone = on_meta(model_name)
    assert set(told) == set(row(model_name)) - {"timm"}
    assert told["model_name"] == model_name
    assert told["route"] == str(backbone.spec.input_spec)
    assert told["channels"] == [shape.channels for shape in backbone.output_shape().values()]
    assert told["parameters"] == sum(p.numel() for p in backbone.parameters())
    assert json.loads(json.dumps(told)) == told


def test_row_of_a_known_model() -> None:
    assert zoo.check("test_resnet") == {k: v for k, v in row("test_resnet").items() if k != "timm"}


@pytest.mark.slow
def test_committed_table_is_true() -> None:
    rows = sample()
    assert len({told["route"].partition(" to ")[0] for told in rows}) >= 5
    assert [zoo.check(told["model_name"]) for told in rows] == rows


def test_committed_table_is_of_every_model() -> None:
    rows = zoo.read_tables(SCRIPT.parents[1] / "docs")
    assert [told["model_name"] for told in rows] == timm.list_models()


@pytest.mark.parametrize("model_name", TINY)
def test_models_keep_the_contract_on_the_cpu(model_name: str) -> None:
    told = zoo.check_real(model_name)
    assert told["model_name"] == model_name
    assert told["route"] == str(on_meta(model_name).spec.input_spec)


class WithSpareParameter(TimmBackbone):
    """Has a parameter that nothing depends on."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.model.spare = nn.Parameter(torch.zeros(3))


class WithSpareBuffer(TimmBackbone):
    """Has a buffer that nothing computes with."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.model.register_buffer("spare", torch.zeros(3))


class WithoutNumbers(TimmBackbone):
    """Its gradients are not finite."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = super().forward(x)
        # finite itself, and infinitely steep
        return {name: (y - y.detach()).abs().sqrt() for name, y in outputs.items()}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (WithSpareParameter, "model.spare gets no gradient"),
        (WithSpareBuffer, "nothing uses model.spare"),
        (WithoutNumbers, "the gradient of .* is not finite"),
    ],
)
def test_model_that_breaks_the_contract_on_the_cpu(
    kind: type[TimmBackbone], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "TimmBackbone", kind)
    with pytest.raises(AssertionError, match=reason):
        zoo.check_real("test_resnet")


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
    zoo.check_outputs(backbone, maps, 1, size)
    with pytest.raises(AssertionError, match=reason):
        zoo.check_outputs(backbone, wrong(maps), 1, size)


@pytest.mark.parametrize("model_name", ["test_resnet", "pit_ti_224"])
def test_every_parameter_needs_a_stage(model_name: str) -> None:
    backbone = on_meta(model_name)
    zoo.check_stages(backbone)
    backbone.stage_of_parameters = lambda coarse: {"conv1.0.weight": 0}
    with pytest.raises(AssertionError, match="parameters without a stage"):
        zoo.check_stages(backbone)
    backbone.stage_of_parameters = lambda coarse: {
        name: 2 * i for i, (name, _) in enumerate(backbone.model.named_parameters())
    }
    with pytest.raises(AssertionError, match="numbered with gaps"):
        zoo.check_stages(backbone)


# Many


@pytest.mark.slow
def test_run_goes_on_where_it_was_and_errors_are_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "deep" / "state.jsonl"
    check = functools.partial(log, tmp_path)
    asked = tmp_path / "asked"
    names = ["a", "b", "c", "e"]
    (tmp_path / "b raises").touch()
    (tmp_path / "c dies").touch()

    rows = zoo.check_all(names, check, 1, state)
    assert [told["model_name"] for told in rows] == names
    assert rows[0] == {"timm": timm.__version__, "model_name": "a", "parameters": 1}
    assert rows[1]["error"] == "ValueError: two lines"
    assert "died" in rows[2]["error"]
    assert "error" not in rows[3]  # the others go on
    assert "b: ValueError: two lines" in "".join(capfd.readouterr())

    for mark in ("b raises", "c dies"):
        (tmp_path / mark).unlink()
    asked.unlink()
    with state.open("a") as lines:
        lines.write('{"timm": "1.0.31", "model_name": "d", "par')  # cut off here
    rows = zoo.check_all(["d", *names], check, 1, state)
    assert [told["model_name"] for told in rows] == ["d", *names]
    assert not [told for told in rows if "error" in told]
    assert sorted(asked.read_text().split()) == ["b", "c", "d"]

    asked.unlink()
    assert zoo.check_all(["d", *names], check, 1, state) == rows  # of a run that is whole, nothing is left
    assert not asked.exists()


def test_rows_of_another_timm_do_not_count(tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    rows = [row("a"), row("b")]
    state.write_text(
        "".join(json.dumps(told) + "\n" for told in [row("a", timm="0.9.0", route="old"), *rows])
    )
    assert zoo.check_all(["b", "a"], zoo.check, 1, state) == rows[::-1]


# Tables


def test_tables_are_read_again(tmp_path: Path) -> None:
    rows = [row("test_resnet"), row("test_vit", kind="one stride", route="padding to multiples of 16")]
    zoo.write_tables(rows, tmp_path)
    assert zoo.read_tables(tmp_path) == [{k: v for k, v in x.items() if k != "timm"} for x in rows]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoo.json", "zoo.md"]


def test_table_has_a_line_a_model_and_one_a_route(tmp_path: Path) -> None:
    rows = [
        row("a"),
        row("b", route="canvas, padded to multiples of 32", native_strides=[14, 14, 17.5, 28]),
        row("c", route="multi-size"),
        row("d", route="resizing to 224x224", parameters=5_250_000),
    ]
    zoo.write_tables(rows, tmp_path)
    text = (tmp_path / "zoo.md").read_text()
    assert text.startswith(f"# The zoo: timm {timm.__version__}\n")
    lines = text.splitlines()
    assert "| a | pyramid | any size | 32 48 192 96 | 4 8 16 32 | 0.37 | 1.05 |" in lines
    assert (
        "| b | pyramid | canvas, padded to multiples of 32 | 32 48 192 96 | 14 14 17.5 28 | 0.37 | 1.05 |"
        in lines
    )
    assert lines[-1].startswith("| d | pyramid | resizing to 224x224 |")
    assert "| 5.25 |" in lines[-1]
    routes = lines[lines.index("| route | models |") + 2 :][:3]
    assert routes == ["| canvas | 2 |", "| any size | 1 |", "| resizing | 1 |"]


@pytest.mark.parametrize("content", [None, '{"timm": "0.9.0", "models": []}'])
def test_tables_that_are_not_there(content: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "zoo.json").write_text(content)
    with pytest.raises(ConfigError) as error:
        zoo.read_tables(tmp_path)
    assert str(tmp_path / "zoo.json") in str(error.value)
    assert "scripts/check_zoo.py" in str(error.value)
    assert "\n" not in str(error.value)


def test_smallest_of_each_module() -> None:
    sizes = {
        "resnet18": 11,
        "resnet10t": 5,
        "test_resnet": 1,
        "vit_tiny_patch16_224": 6,
        "vit_small_patch16_224": 22,
    }
    rows = [row(name, parameters=n) for name, n in sizes.items()]
    everything = timm.list_models()
    assert zoo.smallest_of_each_module(rows, everything) == ["test_resnet", "vit_tiny_patch16_224"]
    assert zoo.smallest_of_each_module(rows, ["resnet18", "resnet10t"]) == ["resnet10t"]
    assert zoo.smallest_of_each_module(rows, ["vgg11"]) == []


# scripts/check_zoo.py


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return commands.load("check_zoo")


@pytest.fixture
def command(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The script in this process, with its folders in ``tmp_path``; gives the exit code."""

    def command(*arguments: str) -> int:
        folders = ["--docs", str(tmp_path / "docs"), "--state", str(tmp_path / "state")]
        monkeypatch.setattr(sys, "argv", ["check_zoo.py", *arguments, *folders])
        code: int = script.main()
        return code

    return command


@pytest.mark.slow
def test_script_goes_on_where_it_was(tmp_path: Path) -> None:
    """Of the five that match, four are known, and the line of the last was cut off."""
    names = timm.list_models("test_vit*")
    state = tmp_path / "state" / "meta.jsonl"
    remember(state, [row(name) for name in names[1:]])
    with state.open("a") as lines:
        lines.write(json.dumps(row(names[0]))[:60])
    arguments = [
        "--models",
        "test_vit*",
        "--jobs",
        "1",
        "--docs",
        str(tmp_path),
        "--state",
        str(state.parent),
    ]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(names)} of {len(names)} models keep the contract" in done.stdout
    told = json.loads(state.read_text().splitlines()[-1])
    assert (told["model_name"], told["route"]) == (names[0], "padding to multiples of 16")
    assert not (tmp_path / "zoo.md").exists()  # some models are no table


def test_script_writes_the_tables_of_all(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = timm.list_models()
    remember(tmp_path / "state" / "meta.jsonl", [row(name) for name in names])
    assert command() == 0
    assert f"{len(names)} of {len(names)} models" in capsys.readouterr().out
    assert len(zoo.read_tables(tmp_path / "docs")) == len(names)


def test_script_fails_if_a_model_does(
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = {"model_name": "test_vit", "error": "AssertionError: res4 is not finite"}
    monkeypatch.setattr(zoo, "check_all", lambda *_: [row("test_resnet"), failed])
    assert command() == 1
    out = capsys.readouterr().out
    assert "1 of 2 models keep the contract" in out
    assert "test_vit: AssertionError: res4 is not finite" in out
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--models", "nope*"], "--models 'nope*': no model of timm"), (["--real"], "zoo.json does not tell")],
)
def test_script_with_nothing_to_check(
    arguments: list[str], reason: str, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert reason in err
    assert err.count("\n") == 1


def test_real_run_takes_the_smallest_of_each_module(
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "docs").mkdir()
    zoo.write_tables(
        [row("resnet18", parameters=11), row("resnet10t", parameters=5), row("vgg11", parameters=9)],
        tmp_path / "docs",
    )
    remember(tmp_path / "state" / "real.jsonl", [row("resnet10t"), row("vgg11")])
    before = (tmp_path / "docs" / "zoo.md").read_text()
    assert command("--real") == 0
    assert "2 of 2 models keep the contract" in capsys.readouterr().out
    assert (tmp_path / "docs" / "zoo.md").read_text() == before
