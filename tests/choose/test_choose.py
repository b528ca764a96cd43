"""A choice from its beginning to its end, with trainings that only pass the time of a clock."""

from __future__ import annotations

import html
import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.found import write_matches

from d2timm import ConfigError
from d2timm.choose import clock, context, transfer, winner
from d2timm.choose.candidates import find_candidates
from d2timm.choose.choose import Request, choose
from d2timm.choose.context import Limits
from d2timm.choose.trainings import SHORTEST, Ended, Job, Trainings
from d2timm.runs.choice import Choice
from d2timm.runs.record import Record

#: Backbone -> seconds per step, share of the objects that it finds after long training
MODELS = {
    "test_resnet": (0.5, 0.95),
    "test_efficientnet": (1.0, 0.7),
    "test_byobnet": (2.0, 0.75),
    "test_vit": (0.7, 0.5),
    "test_convnext": (0.3, 0.4),
}
MORE = {"test_vit2": (0.5, 0.3), "test_vit3": (0.6, 0.35), "test_convnext2": (0.4, 0.2)}
OVERHEAD = 6.0
IMAGES = 60


class Killed(BaseException):
    """The process is killed."""


@dataclass
class World:
    """The time, and what happens in it.

    Attributes:
        now: seconds since 1970.
        jobs: all trainings that began.
        failing: pattern of folders -> why these trainings fail.
        kill_at: number of the training in which the process is killed.
        slower: factor of the time of all trainings.
    """

    now: float = 1.75e9
    jobs: list[Job] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)
    kill_at: int | None = None
    slower: float = 1.0

    def train(self, job: Job) -> Ended:
        """Pass the time of a training and write its folder."""
        self.jobs.append(job)
        if job.limit < SHORTEST:
            return Ended(Record(status="interrupted"), 0.0, "no time is left for it")
        if len(self.jobs) == self.kill_at:
            self.now += 7
            raise Killed
        values = dict(text.split("=", 1) for text in job.overrides)
        pace, skill = {**MODELS, **MORE}[job.wanted.name]
        end = int(values.get("train.max_iter", 0))
        steps = min(int(values.get("train.pause_at", end)), end)
        earlier = Record.read(job.folder)
        done = earlier.iterations if earlier else 0
        cooling = float(values.get("train.cool_down", 0)) * steps
        seconds = self.slower * ((steps - done + cooling) * pace + OVERHEAD)
        for pattern, reason in self.failing.items():
            if re.search(pattern, str(job.folder)):
                self.now += min(seconds / 2, job.limit)
                return Ended(Record(status="failed"), seconds / 2, reason)
        if seconds > job.limit:
            self.now += job.limit
            return Ended(Record(status="interrupted"), job.limit, f"it took longer than {job.limit:.0f} s")
        self.now += seconds
        trained = steps * pace * self.slower
        share = skill * trained / (trained + 20)
        if "optimizer.lr" in values:
            prior = float(values["optimizer.lr"])
            share *= 1 - 0.01 * abs(np.log10(prior / 2e-4))
        seed = int(values.get("train.seed", 0))
        score = write_matches(job.folder, share, [seed, *job.wanted.name.encode()], IMAGES)
        record = Record(
            status="done",
            iterations=steps,
            max_iter=end,
            train_seconds=trained,
            images_per_second=1 / pace,
            parameters=1_000_000,
        )
        record.set_metrics({"bbox": {"AP": score}})
        record.write(job.folder)
        (job.folder / "model_best.pth").touch()
        return Ended(record, seconds, "")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    fake = SimpleNamespace(time=lambda: world.now, monotonic=lambda: world.now)
    for where in (importlib.import_module("d2timm.choose.choose"), clock, context):
        monkeypatch.setattr(where, "time", fake)
    monkeypatch.setattr(Trainings, "_run", lambda self, job: world.train(job))

    def run(command: list[str], **options: Any) -> None:
        world.now += 3
        if "d2timm.choose.features" in command:
            task = json.loads(options["input"])
            Path(task["file"]).write_text('{"score": 0.5}')
        elif "d2timm.choose.exported" in command:
            Path(command[-1]).write_text('{"milliseconds": 12.0}')

    for where in (transfer, winner):
        monkeypatch.setattr(where.subprocess, "run", run)
    return world


@pytest.fixture(scope="module")
def images(small_coco: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name forty images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    for number in range(40):
        cells = np.random.default_rng(number).integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        coco["images"].append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        box = [5, 5, 20, 20]
        coco["annotations"].append(
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
        )
    (folder / "train.json").write_text(json.dumps(coco))
    return [f"data.train_json={folder}/train.json", f"data.train_images={folder}", "train.device=cpu"]


Make = Callable[..., Request]


@pytest.fixture
def request_for(images: list[str], tmp_path: Path) -> Make:
    def make(hours: float | None = 1.0, **more: Any) -> Request:
        names = more.pop("candidates", ",".join(f"{name}=random" for name in MODELS))
        values: dict[str, Any] = {
            **{"output": tmp_path / "choice", "overrides": images, "config_file": None, "by": None},
            **{"limits": Limits(), "jobs": None, "command": ["d2timm", "choose"]},
        }
        return Request(**{**values, "candidates": find_candidates(names), "hours": hours, **more})

    return make


def test_the_best_is_found_in_time_and_tested_once(world: World, request_for: Make) -> None:
    choice = choose(request_for())
    verdict = choice.verdict
    assert verdict is not None
    assert verdict.name == "test_resnet"
    assert [stage.name for stage in choice.stages] == [
        "data",
        "costs",
        "features",
        "rungs",
        "finals",
        "winner",
    ]
    assert choice.ended is not None
    assert choice.ended <= choice.deadline
    assert verdict.folder == "winner/test_resnet"
    assert (verdict.exported, verdict.milliseconds) == ("detector.onnx", 12.0)
    assert "test_resnet" in verdict.sentence
    assert [job.val for job in world.jobs].count("test") == 1
    assert world.jobs[-1].val == "test"
    assert world.jobs[-1].train == "train_and_choose"
    dropped = {candidate.name: candidate.dropped for candidate in choice.candidates if candidate.dropped}
    assert dropped.keys() >= {"test_vit", "test_convnext"}
    assert choice.seeds == 3
    assert sum(choice.images.values()) == 40
    assert Choice.read(request_for().output) == choice
    assert verdict.sentence in html.unescape((request_for().output / "report.html").read_text())


def test_rungs_are_equal_in_seconds(world: World, request_for: Make) -> None:
    choice = choose(request_for())
    for number, end in enumerate(choice.plan):
        seconds = [c.rungs[number].seconds for c in choice.candidates if len(c.rungs) > number]
        assert len(seconds) > 2
        assert min(seconds) > end - 2.1
        assert max(seconds) <= end


@pytest.mark.parametrize("hours", [0.02, 0.05, 0.1, 0.17, 0.3, 0.5, 1.0, 4.0, 24.0])
def test_the_clock_is_kept(world: World, request_for: Make, hours: float) -> None:
    choice = choose(request_for(hours))
    assert choice.ended is not None
    assert choice.ended <= choice.deadline
    assert choice.verdict is not None
    if choice.verdict.name:
        assert choice.verdict.test_score is not None
        assert choice.verdict.name == "test_resnet" or hours < 0.5
    else:
        assert hours < 0.1
        assert re.search(
            r"Nothing can be decided in \d+ (s|min): .*test_.* need about", choice.verdict.sentence
        )


@pytest.mark.parametrize("slower", [1.5, 4.0])
def test_the_clock_is_kept_on_a_machine_that_becomes_slow(
    world: World, request_for: Make, slower: float
) -> None:
    original = world.train

    def train(job: Job) -> Ended:
        world.slower = slower if len(world.jobs) > 7 else 1.0
        return original(job)

    world.train = train  # type: ignore[method-assign]
    choice = choose(request_for(0.5))
    assert choice.ended is not None
    assert choice.ended <= choice.deadline + 0.03 * 1800
    assert choice.verdict is not None


@pytest.mark.parametrize("first_slow", [6, 9, 11, 13, 16])
def test_a_machine_that_almost_stops_still_gives_a_verdict(
    world: World, request_for: Make, first_slow: int
) -> None:
    original = world.train

    def train(job: Job) -> Ended:
        world.slower = 20.0 if len(world.jobs) >= first_slow else 1.0
        return original(job)

    world.train = train  # type: ignore[method-assign]
    models = ",".join(f"{name}=random" for name in [*MODELS, *MORE])
    choice = choose(request_for(2.0, candidates=models))
    assert choice.ended is not None
    assert choice.ended <= choice.deadline + 0.03 * 7200
    assert choice.verdict is not None
    assert choice.verdict.sentence


@pytest.mark.parametrize("stage", ["probes", "rungs", "finals"])
def test_a_candidate_that_fails_is_dropped_with_its_reason(
    world: World, request_for: Make, stage: str
) -> None:
    world.failing = {f"{stage}/test_efficientnet": "out of memory, with a peak of 9.9 GB"}
    choice = choose(request_for())
    assert choice.verdict is not None
    assert choice.verdict.name == "test_resnet"
    failed = next(c for c in choice.candidates if c.name == "test_efficientnet")
    notes = [note for stage in choice.stages for note in stage.notes]
    assert any("out of memory" in note for note in notes)
    assert stage == "finals" or "out of memory" in failed.reason


def test_a_finalist_whose_first_seed_fails_is_judged_by_the_others(world: World, request_for: Make) -> None:
    world.failing = {"finals/test_resnet-seed0": "it took longer than 60 s"}
    choice = choose(request_for())
    assert choice.verdict is not None
    assert choice.verdict.name == "test_resnet"


def test_a_single_candidate_is_not_called_the_best(world: World, request_for: Make) -> None:
    world.failing = {"probes/test_(?!resnet)": "killed by SIGKILL"}
    choice = choose(request_for())
    assert choice.verdict is not None
    assert "the only candidate" in choice.verdict.sentence


def test_if_all_fail_the_error_says_so(world: World, request_for: Make) -> None:
    world.failing = {"": "a reason"}
    with pytest.raises(ConfigError, match="no candidate is left"):
        choose(request_for())


def test_a_winner_that_fails_is_taken_from_the_finals(world: World, request_for: Make) -> None:
    world.failing = {"winner/test_resnet$": "killed by SIGKILL"}
    choice = choose(request_for())
    assert choice.verdict is not None
    assert choice.verdict.folder.startswith("finals/test_resnet-seed")
    assert choice.verdict.weights == f"{choice.verdict.folder}/model_best.pth"
    assert f"--weights {request_for().output}/{choice.verdict.weights}" in choice.verdict.command
    assert choice.verdict.test_score is not None
    assert world.jobs[-1].eval_only


@pytest.mark.parametrize("kill_at", [1, 4, 6, 8, 10, 12, 15, 18])
def test_a_choice_that_was_killed_goes_on(world: World, request_for: Make, kill_at: int) -> None:
    request = request_for()
    world.kill_at = kill_at
    with pytest.raises(Killed):
        choose(request)
    before = Choice.read(request.output)
    assert before is not None
    assert before.ended is None
    jobs = {job.folder for job in world.jobs[:-1]}
    choice = choose(request)
    assert choice.verdict is not None
    assert choice.verdict.name == "test_resnet"
    assert choice.deadline == before.deadline
    assert choice.ended is not None
    assert choice.ended <= choice.deadline
    again = [job.folder for job in world.jobs[kill_at:]]
    repeated = {folder for folder in again if folder in jobs and "rungs" not in str(folder)}
    assert not repeated, "what was trained is not trained again"
    assert choose(request) == choice, "nothing is left to do"


@pytest.mark.parametrize("number", range(1, 60, 4))
def test_a_choice_that_was_killed_while_it_saved_goes_on(
    world: World, request_for: Make, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = choose(request_for(output=request_for().output.parent / "whole"))
    write, count = Choice.write, 0

    def kill(choice: Choice, folder: Path) -> None:
        nonlocal count
        write(choice, folder)
        count += 1
        if count == number:
            raise Killed

    world.now = 1.75e9
    monkeypatch.setattr(Choice, "write", kill)
    request = request_for()
    with pytest.raises(Killed):
        choose(request)
    choice = choose(request)
    assert choice.verdict is not None
    assert whole.verdict is not None
    assert choice.verdict.name == whole.verdict.name
    last = {candidate.name: candidate.dropped for candidate in choice.candidates}
    assert last == {candidate.name: candidate.dropped for candidate in whole.candidates}


def test_limits_are_kept(world: World, request_for: Make) -> None:
    choice = choose(request_for(limits=Limits(milliseconds=900.0)))
    slow = next(c for c in choice.candidates if c.name == "test_byobnet")
    assert (slow.dropped, slow.reason) == ("costs", "2000 ms per image")
    with pytest.raises(ConfigError, match="no candidate is left"):
        choose(request_for(limits=Limits(parameters=1000.0), output=request_for().output.parent / "small"))


def test_other_settings_in_the_same_folder_are_an_error(world: World, request_for: Make) -> None:
    world.kill_at = 3
    with pytest.raises(Killed):
        choose(request_for())
    with pytest.raises(ConfigError, match="other candidates"):
        choose(request_for(candidates="test_resnet=random,test_vit=random"))
    with pytest.raises(ConfigError, match="other limits"):
        choose(request_for(limits=Limits(milliseconds=9.0)))
    world.now += 7200
    with pytest.raises(ConfigError, match="the time of this choice is over"):
        choose(request_for())
    assert choose(request_for(4.0)).verdict


@pytest.mark.parametrize("key", ["train.max_iter=5", "lr_multiplier.warmup_length=0.1", "train.seed=1"])
def test_keys_that_follow_from_the_time_are_errors(world: World, request_for: Make, key: str) -> None:
    request = request_for()
    with pytest.raises(ConfigError, match=key.partition("=")[0]):
        choose(request_for(overrides=[*request.overrides, key]))
    assert not request.output.exists()
