"""How a run finds out in which way its steps are fastest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2timm.config.build import build_model, instantiate
from d2timm.config.lazy import load, save
from d2timm.engine import tuning
from d2timm.engine.process import run
from d2timm.engine.tuning import choose_ways
from d2timm.errors import ConfigError
from d2timm.modeling.ways import Ways
from d2timm.runs.record import Record

Compose = Callable[..., Any]
RECIPE = "faster_rcnn_timm.py"
#: Seconds and sum of losses of a step
Times = dict[Ways, tuple[float, float]]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def compose(tiny: Compose, tmp_path: Path) -> Compose:
    return lambda *overrides, iterations=100_000: tiny(
        RECIPE, tmp_path / "run", *overrides, f"data.settings.custom.max_iter={iterations}"
    )


class Timed:
    """Stands for the measurement of a step, and lists what was measured."""

    def __init__(self, times: Times) -> None:
        self.times = times
        self.calls: list[Ways] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Timed:
        def measure(trial: Any) -> tuple[float, float]:
            self.calls.append(trial.ways)
            return self.times[trial.ways]

        monkeypatch.setattr(tuning._Trial, "_measure", measure)
        return self


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Times], Timed]:
    return lambda times: Timed(times).install(monkeypatch)


def tune(cfg: Any, record: Record | None = None) -> Record:
    record = record or Record()
    choose_ways(cfg, build_model(cfg), instantiate(cfg.dataloader.train), record)
    return record


def ways_of(record: Record) -> Ways:
    return Ways.from_dict(record.tuning["ways"])


SLOW, NHWC, COMPILED = Ways(), Ways(channels_last=True), Ways(compile=True)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({SLOW: (1.0, 3.0), NHWC: (0.8, 3.0)}, NHWC),
        ({SLOW: (1.0, 3.0), NHWC: (1.1, 3.0)}, SLOW),
        ({SLOW: (1.0, 3.0), NHWC: (0.97, 3.0)}, SLOW),  # not by enough
        ({SLOW: (1.0, 3.0), NHWC: (0.5, 3.5)}, SLOW),  # other losses
        ({SLOW: (1.0, 3.0), NHWC: (0.5, float("nan"))}, SLOW),
    ],
)
def test_the_faster_way_with_the_same_losses_is_taken(
    compose: Compose, timed: Callable[[Times], Timed], times: Times, expected: Ways
) -> None:
    timed(times)
    record = tune(compose(iterations=1000))
    assert ways_of(record) == expected
    assert [trial["channels_last"] for trial in record.tuning["trials"]] == [False, True]


def test_compilation_is_tried_in_long_runs_only(
    compose: Compose,
    timed: Callable[[Times], Timed],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {SLOW: (1.0, 3.0), NHWC: (1.2, 3.0), COMPILED: (0.7, 3.0)}
    for iterations, expected in ((1000, SLOW), (100_000, COMPILED)):
        monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / str(iterations)))
        timed(times)
        assert ways_of(tune(compose(iterations=iterations))) == expected


def test_short_run_measures_nothing(compose: Compose, timed: Callable[[Times], Timed]) -> None:
    measured = timed({SLOW: (1.0, 3.0)})
    record = tune(compose(iterations=100))
    assert not measured.calls
    assert record.tuning == {"ways": Ways().to_dict()}


def test_result_is_kept_for_later_runs(compose: Compose, timed: Callable[[Times], Timed]) -> None:
    measured = timed({SLOW: (1.0, 3.0), NHWC: (0.8, 3.0)})
    tune(compose(iterations=1000))
    calls = len(measured.calls)
    assert ways_of(tune(compose(iterations=1000))) == NHWC
    assert len(measured.calls) == calls
    tune(compose("data.settings.custom.train_short_edges=[96]", iterations=1000))
    assert len(measured.calls) == 2 * calls, "another image size is measured"
    tune(compose(iterations=5000))
    assert len(measured.calls) > 2 * calls, "a longer run may try more"


def test_saved_config_has_the_same_result(compose: Compose, tmp_path: Path) -> None:
    cfg = compose()
    save(cfg, tmp_path / "config.yaml")
    assert tuning._key(cfg, {}) == tuning._key(load(tmp_path / "config.yaml"), {})


@pytest.mark.parametrize("content", ["", "[]", '{"ways": 3}', "{"])
def test_damaged_cache_is_no_error(
    compose: Compose, timed: Callable[[Times], Timed], tmp_path: Path, content: str
) -> None:
    timed({SLOW: (1.0, 3.0), NHWC: (0.8, 3.0)})
    tune(compose(iterations=1000))
    (file,) = (tmp_path / "cache" / "tuning").glob("*.json")
    file.write_text(content)
    assert ways_of(tune(compose(iterations=1000))) in (SLOW, NHWC)


def test_keys_of_the_config_come_first(compose: Compose, timed: Callable[[Times], Timed]) -> None:
    both = Ways(True, True)
    timed({NHWC: (0.8, 3.0), both: (0.7, 3.0), SLOW: (1.0, 3.0)})
    assert ways_of(tune(compose("train.channels_last=False", "train.compile=False", iterations=1000))) == SLOW
    assert ways_of(tune(compose("train.channels_last=True", iterations=1000))) == NHWC
    assert ways_of(tune(compose("train.tune=off"))) == SLOW


def test_way_that_fails_is_noted_and_not_taken(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(trial: Any) -> tuple[float, float]:
        if trial.ways.channels_last:
            raise RuntimeError("could not create a primitive")
        return 1.0, 3.0

    monkeypatch.setattr(tuning._Trial, "_measure", fail)
    record = tune(compose(iterations=1000))
    assert ways_of(record) == SLOW
    assert "primitive" in record.tuning["trials"][0]["error"]


def test_run_that_continues_computes_as_before(compose: Compose, timed: Callable[[Times], Timed]) -> None:
    measured = timed({})
    record = tune(compose(), Record(tuning={"ways": {"channels_last": True}}))
    assert ways_of(record) == NHWC
    assert not measured.calls


def test_folder_of_a_run_gives_its_ways(compose: Compose, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Record(tuning={"ways": {"channels_last": True}}).write(other)
    assert ways_of(tune(compose(f"train.tune={other}"))) == NHWC
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=r"train\.tune="):
            tune(compose(f"train.tune={wrong}"))


def test_ways_are_recorded_before_the_first_step(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d2timm.engine.trainer import Trainer

    class Killed(BaseException):
        pass

    def kill(self: Any) -> None:
        raise Killed(json.loads((tmp_path / "run" / "result.json").read_text())["tuning"]["ways"])

    monkeypatch.setattr(Trainer, "run_step", kill)
    with pytest.raises(Killed) as killed:
        run(compose("train.channels_last=True", iterations=2))
    assert killed.value.args[0] == NHWC.to_dict()


def test_measurement_leaves_the_run_as_it_was(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    monkeypatch.setattr(tuning, "SHARE", 1e4)
    for name, fewest in (("measured", 1), ("plain", 10)):
        monkeypatch.setattr(tuning, "FEWEST", fewest)
        monkeypatch.setattr(tuning, "COMPILE_SECONDS", 1e9)
        monkeypatch.setattr(tuning, "GAIN", 0.0)
        cfg = compose(iterations=2)
        cfg.train.output_dir = str(tmp_path / name)
        run(cfg)
        folders.append(tmp_path / name)
    measured, plain = (json.loads((folder / "result.json").read_text()) for folder in folders)
    assert len(measured["tuning"]["trials"]) == 2
    assert measured["tuning"]["cost_seconds"] > 0
    assert measured["metrics"] == plain["metrics"]
    lines = [(folder / "metrics.json").read_text().splitlines() for folder in folders]
    losses = [[json.loads(line).get("total_loss") for line in each] for each in lines]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("seconds", "expected"), [(1000.0, 1), (1e-6, 3)])
def test_loader_has_the_workers_that_it_needs(
    compose: Compose, timed: Callable[[Times], Timed], seconds: float, expected: int
) -> None:
    timed({SLOW: (seconds, 3.0), NHWC: (seconds, 3.0)})
    cfg = compose("train.compile=False", iterations=1000)
    cfg.dataloader.train.num_workers = "auto"
    loader = instantiate(cfg.dataloader.train)
    loader.num_workers = 3  # as on a machine with more cores
    record = Record()
    choose_ways(cfg, build_model(cfg), loader, record)
    assert loader.num_workers == expected
    assert record.tuning["workers"] >= expected
    cfg.dataloader.train.num_workers = loader.num_workers = 7
    choose_ways(cfg, build_model(cfg), loader, record)
    assert loader.num_workers == 7, "the user's number stays"
