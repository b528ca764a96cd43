"""Experiment trackers: the real packages, offline."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from detectron2.utils.events import EventStorage

from d2timm import ConfigError, get_config
from d2timm.config.overrides import apply_overrides
from d2timm.engine.process import run
from d2timm.engine.writers import WRITERS, MlflowWriter, WandbWriter, build_writers, check_writers, settings

MASK = "mask_rcnn_timm.py"
CONFIG = {"train.max_iter": 6, "train.writers": ["wandb"], "optimizer.lr": 0.1}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Weights & Biases writes files, and MLflow uses a database in a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my run").mkdir()
    return tmp_path / "my run"


def feed(writer: Any, iterations: range, period: int = 1, **more: float) -> None:
    """Write a loss that equals the iteration, and ``more`` scalars with the last iteration."""
    with EventStorage(iterations.start) as storage:
        for storage.iter in iterations:
            storage.put_scalar("total_loss", storage.iter, smoothing_hint=False)
            if storage.iter == iterations[-1]:
                storage.put_scalars(**more, smoothing_hint=False)
            if (storage.iter + 1) % period == 0:
                writer.write()
        writer.write()


def mlflow_run(folder: Path) -> Any:
    """The run of a folder as stored in MLflow."""
    return mlflow.MlflowClient().get_run((folder / ".mlflow_id").read_text())


def series(folder: Path, key: str) -> list[tuple[int, float]]:
    history = mlflow.MlflowClient().get_metric_history((folder / ".mlflow_id").read_text(), key)
    return [(metric.step, metric.value) for metric in history]


# MLflow


def test_mlflow_receives_config_scalars_and_status(folder: Path) -> None:
    writer = MlflowWriter(folder, CONFIG)
    assert mlflow_run(folder).info.status == "RUNNING"
    feed(writer, range(4), **{"bbox/AP": 12.5, "bbox/AP-Tom's cup": math.nan})
    writer.close()
    stored = mlflow_run(folder)
    assert (stored.info.run_name, stored.info.status) == ("my run", "FINISHED")
    assert stored.data.params == {"train.max_iter": "6", "train.writers": "['wandb']", "optimizer.lr": "0.1"}
    assert stored.data.metrics["bbox/AP"] == 12.5
    assert math.isnan(stored.data.metrics["bbox/AP-Tom_s cup"])
    assert series(folder, "total_loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert mlflow.MlflowClient().get_experiment(stored.info.experiment_id).name == "d2timm"


def test_each_scalar_is_sent_once(folder: Path) -> None:
    writer = MlflowWriter(folder, {})
    feed(writer, range(5), period=2)
    writer.close()
    assert series(folder, "total_loss") == [(1, 1.0), (3, 3.0), (4, 4.0)]


def test_resumed_run_continues_in_mlflow(folder: Path) -> None:
    for iterations in (range(2), range(2, 4)):
        writer = MlflowWriter(folder, {"part": iterations.start})
        feed(writer, iterations)
        writer.close()
    assert [at for at, _ in series(folder, "total_loss")] == [0, 1, 2, 3]
    assert mlflow_run(folder).data.params == {"part": "0"}, "the config of the start"


def test_large_configs_are_sent_in_parts(folder: Path) -> None:
    config = {f"key{i}": i for i in range(250)} | {"long": "x" * 7000}
    MlflowWriter(folder, config).close()
    params = mlflow_run(folder).data.params
    assert len(params) == 251
    assert params["long"] == "x" * 6000


def test_run_continues_while_the_server_does_not_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*args: Any, **kwargs: Any) -> None:
        raise mlflow.exceptions.MlflowException("no answer")

    writer = MlflowWriter(folder, {})
    with monkeypatch.context() as patch:
        patch.setattr(writer.client, "log_batch", down)
        feed(writer, range(1))
    feed(writer, range(1, 2))
    monkeypatch.setattr(writer.client, "set_terminated", down)
    writer.close()
    assert series(folder, "total_loss") == [(1, 1.0)]
    scalars, end = caplog.messages
    assert "iteration 0" in scalars
    assert all("no answer" in message for message in (scalars, end))


# Weights & Biases


def test_wandb_receives_config_and_scalars(folder: Path) -> None:
    writer = WandbWriter(folder, CONFIG)
    feed(writer, range(4), **{"bbox/AP": 12.5})
    assert (writer.run.name, writer.run.project) == ("my run", "d2timm")
    assert dict(writer.run.config) == CONFIG
    summary = dict(writer.run.summary)
    assert (summary["total_loss"], summary["bbox/AP"], summary["iteration"]) == (3.0, 12.5, 3)
    writer.close()
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    assert (folder / ".wandb_id").read_text() in file.name


def test_resumed_run_continues_in_wandb(folder: Path) -> None:
    runs = []
    for iterations in (range(4), range(2, 6)):  # a kill after a checkpoint: two iterations are trained again
        writer = WandbWriter(folder, CONFIG)
        feed(writer, iterations)
        runs.append((writer.run.id, writer.run.summary["iteration"]))
        writer.close()
    assert runs[0][0] == runs[1][0]
    assert [at for _, at in runs] == [3, 5]
    assert {file.stem for file in folder.glob("wandb/offline-run-*/*.wandb")} == {f"run-{runs[0][0]}"}


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(None, 0, "FINISHED"), (OSError, 1, "FAILED"), (KeyboardInterrupt, 0, "FINISHED")],
)
def test_services_receive_the_status_of_a_run(
    error: type[BaseException] | None, code: int, status: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    run = SimpleNamespace(
        id="1", define_metric=lambda *a, **k: None, finish=lambda exit_code: codes.append(exit_code)
    )
    monkeypatch.setattr("wandb.init", lambda **kwargs: run)
    writers = [WandbWriter(folder, {}), MlflowWriter(folder, {})]
    try:
        try:
            if error:
                raise error
        finally:  # as detectron2's loop does
            for writer in writers:
                writer.close()
    except (OSError, KeyboardInterrupt):
        pass
    assert codes == [code]
    assert mlflow_run(folder).info.status == status


# In a run


def test_run_writes_to_the_configured_services(tiny: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "followed"
    run(tiny(MASK, folder, "train.writers=[wandb,mlflow]", "train.pause_at=2"))
    run(tiny(MASK, folder, "train.writers=[wandb,mlflow]"), resume=True)
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    for key in ("total_loss", "lr", "bbox/AP"):
        expected = {line["iteration"]: line[key] for line in lines if key in line}
        received = dict(series(folder, key))  # also the evaluation at the pause
        assert {iteration: received[iteration] for iteration in expected} == pytest.approx(expected)
    stored = mlflow_run(folder)
    assert (stored.info.run_name, stored.info.status) == ("followed", "FINISHED")
    assert stored.data.params["model.backbone.bottom_up.model_name"] == "test_efficientnet"
    assert stored.data.params["train.max_iter"] == "4", "interpolations of values are resolved"
    assert len({file.name for file in folder.glob("wandb/offline-run-*/*.wandb")}) == 1
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2


@pytest.mark.parametrize("recipe", ["mask_rcnn_timm.py", "faster_rcnn_timm.py", "retinanet_timm.py"])
def test_settings_are_all_values_of_a_tree(recipe: str) -> None:
    cfg = apply_overrides(get_config(recipe), ["data.name=shapes", "train.max_iter=7"])
    values = settings(cfg)
    assert values["train.max_iter"] == 7
    assert values["optimizer.lr"] == cfg.data.settings.shapes.lr
    assert values["model.backbone.bottom_up.strides"] == [4, 8, 16, 32]
    assert values["dataloader.train.dataset.data"] == "${data}", "nodes are not repeated"
    assert values["optimizer._target_"] == "d2timm.engine.create_optimizer"
    assert values["data.tasks.model"] == values["model._target_"], "classes are stored by name"
    json.dumps(values)


def test_no_service_by_default(tiny: Callable[..., Any], tmp_path: Path) -> None:
    assert build_writers(tiny(MASK, tmp_path), tmp_path) == []
    assert build_writers(tiny(MASK, tmp_path, "~train.writers"), tmp_path) == []


# Mistakes


@pytest.mark.parametrize(
    ("names", "facts"),
    [
        (["wandbb"], ["train.writers=['wandbb']", "'wandbb'", "wandb, mlflow", "did you mean wandb?"]),
        ("wandb", ["train.writers=wandb", "[wandb]"]),
    ],
)
def test_unknown_writers_are_rejected(names: Any, facts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        check_writers(names)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)], ids=["nothing", "a folder"])
def test_missing_package_is_an_error_that_names_the_extra(
    name: str, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writers([name])
    looked_up: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: looked_up.append(package) or spec)
    monkeypatch.setattr(WRITERS[name], "package", "its_package")
    monkeypatch.setattr(WRITERS[name], "extra", "its_extra")
    with pytest.raises(ConfigError, match=rf"{name}.*pip install 'd2timm\[its_extra\]'"):
        check_writers([name])
    assert looked_up == ["its_package"], "the writer declares its package and extra"
