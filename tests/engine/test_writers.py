"""Services that follow a run: the real packages, offline."""

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
from d2timm.config.lazy import apply_overrides
from d2timm.engine.run import run
from d2timm.engine.writers import WRITERS, MlflowWriter, WandbWriter, build_writers, check_writers, settings

MASK = "mask_rcnn_timm.py"
CONFIG = {"train.max_iter": 6, "train.writers": ["wandb"], "optimizer.lr": 0.1}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Weights & Biases writes files; MLflow a data base, made once."""
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
    """A loss that is the iteration, and what else is given with the last one."""
    with EventStorage(iterations.start) as storage:
        for storage.iter in iterations:
            storage.put_scalar("total_loss", storage.iter, smoothing_hint=False)
            if storage.iter == iterations[-1]:
                storage.put_scalars(**more, smoothing_hint=False)
            if (storage.iter + 1) % period == 0:
                writer.write()
        writer.write()


def told_to_mlflow(folder: Path) -> Any:
    """The run of a folder, as MLflow has it."""
    return mlflow.MlflowClient().get_run((folder / ".mlflow_id").read_text())


def series(folder: Path, key: str) -> list[tuple[int, float]]:
    history = mlflow.MlflowClient().get_metric_history((folder / ".mlflow_id").read_text(), key)
    return [(metric.step, metric.value) for metric in history]


# MLflow


def test_mlflow_gets_config_scalars_and_the_end(folder: Path) -> None:
    writer = MlflowWriter(folder, CONFIG)
    assert told_to_mlflow(folder).info.status == "RUNNING"
    feed(writer, range(4), **{"bbox/AP": 12.5, "bbox/AP-Tom's cup": math.nan})
    writer.close()
    told = told_to_mlflow(folder)
    assert (told.info.run_name, told.info.status) == ("my run", "FINISHED")
    assert told.data.params == {"train.max_iter": "6", "train.writers": "['wandb']", "optimizer.lr": "0.1"}
    assert told.data.metrics["bbox/AP"] == 12.5
    assert math.isnan(told.data.metrics["bbox/AP-Tom_s cup"])
    assert series(folder, "total_loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert mlflow.MlflowClient().get_experiment(told.info.experiment_id).name == "d2timm"


def test_each_scalar_is_sent_once(folder: Path) -> None:
    writer = MlflowWriter(folder, {})
    feed(writer, range(5), period=2)
    writer.close()
    assert series(folder, "total_loss") == [(1, 1.0), (3, 3.0), (4, 4.0)]


def test_resumed_run_is_the_same_one_to_mlflow(folder: Path) -> None:
    for iterations in (range(2), range(2, 4)):
        writer = MlflowWriter(folder, {"part": iterations.start})
        feed(writer, iterations)
        writer.close()
    assert [at for at, _ in series(folder, "total_loss")] == [0, 1, 2, 3]
    assert told_to_mlflow(folder).data.params == {"part": "0"}, "as it was when it began"


def test_large_configs_are_sent_in_parts(folder: Path) -> None:
    config = {f"key{i}": i for i in range(250)} | {"long": "x" * 7000}
    MlflowWriter(folder, config).close()
    params = told_to_mlflow(folder).data.params
    assert len(params) == 251
    assert params["long"] == "x" * 6000


def test_server_that_does_not_answer_does_not_end_the_run(
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
    assert "MLflow did not take the scalars of iteration 0: no answer" in caplog.text
    assert "MLflow was not told that the run has ended: no answer" in caplog.text


# Weights & Biases


def test_wandb_gets_config_and_scalars(folder: Path) -> None:
    writer = WandbWriter(folder, CONFIG)
    feed(writer, range(4), **{"bbox/AP": 12.5})
    assert (writer.run.name, writer.run.project) == ("my run", "d2timm")
    assert dict(writer.run.config) == CONFIG
    summary = dict(writer.run.summary)
    assert (summary["total_loss"], summary["bbox/AP"], summary["iteration"]) == (3.0, 12.5, 3)
    writer.close()
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    assert (folder / ".wandb_id").read_text() in file.name


def test_resumed_run_is_the_same_one_to_wandb(folder: Path) -> None:
    runs = []
    for iterations in (range(4), range(2, 6)):  # killed after a checkpoint: two are trained again
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
def test_services_are_told_of_a_failure(
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
        finally:  # as in detectron2's loop
            for writer in writers:
                writer.close()
    except (OSError, KeyboardInterrupt):
        pass
    assert codes == [code]
    assert told_to_mlflow(folder).info.status == status


# In a run


def test_run_is_followed_by_what_it_names(tiny: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "followed"
    run(tiny(MASK, folder, "train.writers=[wandb,mlflow]", "train.pause_at=2"))
    run(tiny(MASK, folder, "train.writers=[wandb,mlflow]"), resume=True)
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    for key in ("total_loss", "lr", "bbox/AP"):
        expected = [(line["iteration"], line[key]) for line in lines if key in line]
        assert dict(series(folder, key)) == pytest.approx(dict(expected))
    told = told_to_mlflow(folder)
    assert (told.info.run_name, told.info.status) == ("followed", "FINISHED")
    assert told.data.params["model.backbone.bottom_up.model_name"] == "test_efficientnet"
    assert told.data.params["train.max_iter"] == "4", "what it refers to, not the reference"
    assert len({file.name for file in folder.glob("wandb/offline-run-*/*.wandb")}) == 1
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2


@pytest.mark.parametrize("recipe", ["mask_rcnn_timm.py", "faster_rcnn_timm.py", "retinanet_timm.py"])
def test_settings_are_all_values_of_a_tree(recipe: str) -> None:
    cfg = apply_overrides(get_config(recipe), ["data.name=shapes", "train.max_iter=7"])
    told = settings(cfg)
    assert told["train.max_iter"] == 7
    assert told["optimizer.lr"] == cfg.data.settings.shapes.lr
    assert told["model.backbone.bottom_up.strides"] == [4, 8, 16, 32]
    assert told["dataloader.train.dataset.data"] == "${data}", "a node is told once"
    assert told["optimizer._target_"] == "d2timm.engine.optim.build_optimizer"
    json.dumps(told)


def test_no_service_by_default(tiny: Callable[..., Any], tmp_path: Path) -> None:
    assert build_writers(tiny(MASK, tmp_path), tmp_path) == []
    assert build_writers(tiny(MASK, tmp_path, "~train.writers"), tmp_path) == []


# What cannot be


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["wandbb"], "train.writers=['wandbb']: 'wandbb': did you mean wandb?; there are wandb, mlflow"),
        ("wandb", "train.writers=wandb: a list, such as [wandb]"),
    ],
)
def test_names_that_are_no_writers(names: Any, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_writers(names)
    assert str(error.value) == told


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("found", [None, SimpleNamespace(origin=None)], ids=["nothing", "a folder"])
def test_package_that_is_not_installed(name: str, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writers([name])
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: found)
    with pytest.raises(ConfigError) as error:
        check_writers([name])
    assert str(error.value) == f"train.writers=['{name}'] needs: pip install 'd2timm[{name}]'"
