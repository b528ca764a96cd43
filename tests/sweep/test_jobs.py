"""Jobs of a sweep: the names of their folders, earlier runs in a folder, and how failures are recorded."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from d2timm import ConfigError
from d2timm.config.lazy import save, to_plain
from d2timm.runs.record import Record, hold, recorded
from d2timm.sweep import jobs, processes
from d2timm.sweep.earlier import check_same
from d2timm.sweep.jobs import MAX_NAME, job_name
from d2timm.sweep.stopping import REQUEST
from d2timm.utils.signals import Interrupted

MASK = "mask_rcnn_timm.py"
MODEL = "model.backbone.bottom_up.model_name"
COMMAND = ["d2timm", "sweep", "backbone=test_resnet"]

# Names

TEXTS = st.text(max_size=200) | st.from_regex(r"[a-z_]+(\.[a-z_]+)*=[a-z0-9./:\[\], -]*", fullmatch=True)


@given(TEXTS)
@example("")
@example(".")
@example("..")
@example("../../etc=1")
@example("a=" + "b" * 500)
@example("name=" + "é" * 200)
@example("name=日本")
@example("a=b\n")
@example("~optimizer.lr")
def test_name_is_safe_for_a_folder(overrides: str) -> None:
    name = job_name(overrides)
    assert re.fullmatch(r"[A-Za-z0-9_.=,+-]+", name)
    assert not name.startswith(".")
    assert len(os.fsencode(name)) <= MAX_NAME + 7
    assert job_name(overrides) == name, "the name is deterministic"


@given(TEXTS, TEXTS)
@example("name=a/b", "name=a:b")
@example("name=a/b", "name=a_b")
@example("name=a", "name=a_")
@example("name=a", "name=.a")
@example("x=" + "a" * 200, "x=" + "a" * 201)
@example("name=é", "name=è")
@example("", "_")
def test_different_overrides_have_different_names(one: str, other: str) -> None:
    if re.sub(r"[^,=]*\.(?=[^=,.]+=)", "", one) != re.sub(r"[^,=]*\.(?=[^=,.]+=)", "", other):
        assert job_name(one) != job_name(other)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("backbone=resnet18", "backbone=resnet18"),
        ("backbone=xcit_small_12_p8_224,roi_heads=mask", "backbone=xcit_small_12_p8_224,roi_heads=mask"),
        ("optimizer.lr=0.001", "lr=0.001"),
        ("optimizer.lr=1e-05,train.seed=3", "lr=1e-05,seed=3"),
        (f"{MODEL}=resnet18.a1_in1k", "model_name=resnet18.a1_in1k"),
        ("backbone=resnet18,+model.extra=1", "backbone=resnet18,extra=1"),
        ("", "run"),
    ],
)
def test_simple_overrides_have_readable_names(overrides: str, name: str) -> None:
    assert job_name(overrides) == name


def test_name_of_a_model_of_the_hub_has_a_hash() -> None:
    name = job_name(f"{MODEL}=hf-hub:timm/resnet18.a1_in1k")
    assert re.fullmatch(r"model_name=hf-hub_timm_resnet18\.a1_in1k-[0-9a-f]{6}", name)
    assert job_name(f"{MODEL}=hf-hub:timm_resnet18.a1_in1k") != name


# The tree of a job


def test_detached_tree_has_no_interpolations_of_hydra() -> None:
    cfg = OmegaConf.create(
        {
            "name": "${hydra:job.name}_${.seed}",
            "seed": 3,
            "model": {
                "name": "resnet18",
                "other": "${model.name}",
                "list": [1, "${hydra:job.name}", "${seed}"],
            },
            "none": None,
        }
    )
    resolver = OmegaConf.has_resolver("hydra")
    OmegaConf.register_new_resolver("hydra", lambda path: f"<{path}>", replace=True)
    try:
        tree = jobs._detach(cfg)
    finally:
        OmegaConf.clear_resolver("hydra")
        if resolver:
            from hydra.core.utils import setup_globals

            setup_globals()
    assert tree == {
        "name": "<job.name>_3",
        "seed": 3,
        "model": {"name": "resnet18", "other": "${model.name}", "list": [1, "<job.name>", "${seed}"]},
        "none": None,
    }
    assert json.loads(json.dumps(tree)) == tree, "the tree is sent to other processes as JSON"


# Earlier runs in a folder


@pytest.fixture
def tree(tiny: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """The tree of a job with four iterations."""
    plain: dict[str, Any] = to_plain(tiny(MASK, tmp_path / "sweep" / "job"))
    return plain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of that job, empty as Hydra creates it."""
    (tmp_path / "sweep" / "job").mkdir(parents=True)
    return tmp_path / "sweep" / "job"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs in this process, as Hydra's basic launcher does."""
    hydra = SimpleNamespace(launcher=SimpleNamespace(_target_=jobs.IN_PROCESS))
    monkeypatch.setattr(jobs.HydraConfig, "get", lambda: hydra)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, in_process: None) -> list[Namespace]:
    """The options of each start of a run; the run is done at once."""
    calls: list[Namespace] = []

    def start(tree: dict[str, Any], options: Namespace, command: list[str]) -> None:
        calls.append(options)
        Record(status="done", iterations=4, max_iter=4).write(Path(tree["train"]["output_dir"]))

    monkeypatch.setattr(processes, "start_run", start)
    return calls


def flags(**more: Any) -> Namespace:
    """The parsed flags of ``d2timm sweep``."""
    defaults = {"resume": False, "eval_only": False, "dry_run": False, "num_gpus": 1, "num_machines": 1}
    own = {"machine_rank": 0, "dist_url": "auto", "repeat_failed": False, "resume_lost": True}
    return Namespace(**{**defaults, **own, **more})


def run_job(tree: dict[str, Any], folder: Path, **more: Any) -> None:
    jobs._run_in_sweep(tree, folder, flags(**more), COMMAND)


DONE = {"status": "done", "iterations": 4, "max_iter": 4}
PAUSED = {"status": "done", "iterations": 2, "max_iter": 4}
STOPPED = {**PAUSED, "stopped": "stopped at iteration 2"}
INTERRUPTED = {"status": "running", "iterations": 2, "max_iter": 4}
KILLED = {**INTERRUPTED, "error": "killed by SIGKILL"}
FAILED = {"status": "failed", "iterations": 2, "max_iter": 4, "error": "FloatingPointError: nan"}
REPEAT, NOT_KILLED = {"repeat_failed": True}, {"resume_lost": False}


@pytest.mark.parametrize(
    ("earlier", "pause", "more", "continues"),
    [
        (DONE, None, {}, False),
        (DONE, None, REPEAT, False),
        (DONE, 2, {}, False),
        (PAUSED, None, {}, True),
        (PAUSED, 3, {}, True),
        (PAUSED, 2, {}, False),
        (PAUSED, 9, {}, True),
        (STOPPED, None, {}, False),
        (STOPPED, None, REPEAT, False),
        (INTERRUPTED, None, {}, True),
        (INTERRUPTED, None, NOT_KILLED, True),
        (KILLED, None, {}, True),
        (KILLED, None, NOT_KILLED, False),
        (FAILED, None, {}, False),
        (FAILED, None, NOT_KILLED, False),
    ],
)
def test_earlier_run_decides_what_a_job_does(
    earlier: dict[str, Any],
    pause: int | None,
    more: dict[str, Any],
    continues: bool,
    tree: dict[str, Any],
    folder: Path,
    started: list[Namespace],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Record(**earlier).write(folder)
    before = (folder / "result.json").read_bytes()
    tree["train"]["pause_at"] = pause
    run_job(tree, folder, **more)
    output = capsys.readouterr().out
    assert not (folder.parent / "job~1").exists()
    if continues:
        (options,) = started
        assert options.resume
        assert output == "[job] done: no score\n"
    else:
        assert not started
        assert (folder / "result.json").read_bytes() == before
        assert output == f"[job] {earlier['status']} before\n"


def test_job_in_an_empty_folder_trains(tree: dict[str, Any], folder: Path, started: list[Namespace]) -> None:
    run_job(tree, folder)
    assert len(started) == 1


def test_failed_run_is_repeated_from_the_start_on_request(
    tree: dict[str, Any], folder: Path, started: list[Namespace]
) -> None:
    Record(**FAILED).write(folder)
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    run_job(tree, folder, **REPEAT)
    assert len(started) == 1
    assert result(folder.parent / "job~1").status == "failed"
    assert not (folder / "last_checkpoint").exists()


def test_job_whose_folder_another_process_trains_in_does_nothing(
    tree: dict[str, Any], folder: Path, started: list[Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded(Record(), folder):
        run_job(tree, folder)
    assert not started
    assert "another process" in capsys.readouterr().out


@pytest.mark.parametrize("meanwhile", [DONE, FAILED, None], ids=["done", "failed", "nothing"])
def test_job_that_another_process_ends_while_this_one_starts_is_not_repeated(
    meanwhile: dict[str, Any] | None,
    tree: dict[str, Any],
    folder: Path,
    started: list[Namespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def hold_late(held: Path) -> Iterator[None]:
        if meanwhile:
            Record(**meanwhile, pid=1).write(held)
        with hold(held):
            yield

    monkeypatch.setattr(jobs, "hold", hold_late)
    run_job(tree, folder, **REPEAT)
    assert bool(started) == (meanwhile is None)
    assert (result(folder).pid == 1) == (meanwhile is not None), "its record stays"


def test_score_is_reported(
    tree: dict[str, Any], folder: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def start(*arguments: Any) -> None:
        Record(status="done", metrics={"bbox": {"AP": 12.345}}).write(folder)

    monkeypatch.setattr(processes, "start_run", start)
    run_job(tree, folder)
    assert capsys.readouterr().out == "[job] done: bbox/AP 12.35\n"


# Settings of an earlier run


@pytest.mark.parametrize("earlier", [DONE, PAUSED, INTERRUPTED], ids=["done", "paused", "interrupted"])
def test_folder_with_other_settings_is_an_error(
    earlier: dict[str, Any], tree: dict[str, Any], folder: Path, started: list[Namespace]
) -> None:
    save(OmegaConf.create(tree), folder / "config.yaml")
    Record(**earlier).write(folder)
    rate = tree["optimizer"]["lr"]
    tree["optimizer"]["lr"] = 0.5
    with pytest.raises(ConfigError) as caught:
        run_job(tree, folder)
    for fact in (str(folder), f"optimizer.lr={rate}", "0.5", "hydra.sweep.dir"):
        assert fact in str(caught.value)
    assert not started


def test_some_settings_may_change(tree: dict[str, Any], folder: Path) -> None:
    save(OmegaConf.create(tree), folder / "config.yaml")
    check_same(tree, folder)
    tree["train"].update(output_dir="elsewhere", pause_at=2, stop_below_median=3, threads=5)
    check_same(tree, folder)
    tree["data"]["name"] = "auto"  # resolved only when the run starts
    check_same(tree, folder)


def test_recipe_may_have_set_values(tree: dict[str, Any], folder: Path) -> None:
    tree["train"]["recipe"] = "auto"
    saved = OmegaConf.create(tree)
    saved.train.recipe, saved.optimizer.lr, saved.optimizer.weight_decay = None, 0.3, 0.9
    save(saved, folder / "config.yaml")
    check_same(tree, folder)
    tree["train"]["seed"] = 5
    with pytest.raises(ConfigError, match=r"train\.seed"):
        check_same(tree, folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [("data.name", "shapes"), ("model.extra", 1), ("model.backbone.bottom_up.remaps", ["res2"])],
    ids=["data", "new key", "list"],
)
def test_other_settings_must_not_change(place: str, value: Any, tree: dict[str, Any], folder: Path) -> None:
    save(OmegaConf.create(tree), folder / "config.yaml")
    changed = OmegaConf.create(tree)
    OmegaConf.update(changed, place, value, force_add=True)
    with pytest.raises(ConfigError, match=re.escape(place)):
        check_same(to_plain(changed), folder)


def test_run_that_was_interrupted_before_it_had_a_config_can_continue(
    tree: dict[str, Any], folder: Path
) -> None:
    check_same(tree, folder)


# Failures


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


def result(folder: Path) -> Record:
    record = Record.read(folder)
    assert record is not None
    return record


def test_misspelt_model_fails_its_job(
    tree: dict[str, Any], folder: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tree["model"]["backbone"]["bottom_up"]["model_name"] = "test_resnett"
    run_job(tree, folder)
    record = result(folder)
    assert record.status == "failed"
    assert "did you mean test_resnet" in str(record.error)
    assert (record.model_name, record.command, record.metric) == ("test_resnett", COMMAND, "bbox/AP")
    out, err = capsys.readouterr()
    assert out == f"[job] failed: {record.error}\n"
    assert "Traceback" not in err, "a user's mistake has no traceback"


def test_diverging_run_fails_its_job(
    tree: dict[str, Any], folder: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tree["optimizer"]["lr"] = 1e30
    run_job(tree, folder)
    record = result(folder)
    assert record.status == "failed"
    assert "Inf/NaN" in str(record.error)
    assert record.model_name == "test_efficientnet"
    assert record.max_iter == 4
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError("no room"), "MemoryError: no room"), (RuntimeError("bad\nworse"), "RuntimeError: bad")],
    ids=["memory", "runtime"],
)
def test_reason_of_a_failure_is_recorded(
    error: Exception,
    reason: str,
    tree: dict[str, Any],
    folder: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "start_run", failing(error))
    run_job(tree, folder)
    assert (result(folder).status, result(folder).error) == ("failed", reason)


def test_failure_of_a_continued_run_keeps_its_earlier_results(
    tree: dict[str, Any], folder: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Record(**INTERRUPTED, scores=[(2, 1.5)]).write(folder)
    monkeypatch.setattr(processes, "start_run", failing(OSError("disk full")))
    run_job(tree, folder)
    record = result(folder)
    assert (record.status, record.error, record.iterations) == ("failed", "OSError: disk full", 2)
    assert record.scores == [(2, 1.5)]


def test_run_whose_data_has_other_classes_now_fails_and_keeps_its_files(
    tree: dict[str, Any], folder: Path, in_process: None, tmp_path: Path
) -> None:
    tree["train"]["pause_at"] = 2
    run_job(tree, folder)
    assert (result(folder).status, result(folder).iterations) == ("done", 2)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for split in ("train", "val"):
        file = tmp_path / f"{split}.json"
        content = json.loads(Path(tree["data"][f"{split}_json"]).read_text())
        content["categories"].append({"id": 99, "name": "new"})
        file.write_text(json.dumps(content))
        tree["data"][f"{split}_json"] = str(file)
    save(OmegaConf.create(tree), folder / "config.yaml")  # as if the files had changed, not their paths
    before["config.yaml"] = (folder / "config.yaml").read_bytes()
    tree["train"]["pause_at"] = None
    run_job(tree, folder)
    record = result(folder)
    assert record.status == "failed"
    assert "'new' is new" in str(record.error)
    assert record.iterations == 2
    assert record.metrics
    after = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {"log.txt"} == {"result.json"}, "the process of both runs still logs to the first"


def test_interrupt_ends_the_sweep(
    tree: dict[str, Any], folder: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "start_run", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run_job(tree, folder)


def test_run_leaves_no_registered_dataset_in_the_process(
    tree: dict[str, Any], folder: Path, in_process: None
) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from d2timm.data.catalog import forget

    forget()
    before = set(DatasetCatalog.list()), set(MetadataCatalog.list())
    tree["train"].update(max_iter=1, eval_period=0)
    run_job(tree, folder)
    assert result(folder).status == "done"
    assert (set(DatasetCatalog.list()), set(MetadataCatalog.list())) == before


# Jobs in separate processes


@pytest.fixture
def separate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Run jobs in separate processes, each of which is a line of shell: ``separate(line)``."""
    hydra = SimpleNamespace(launcher=SimpleNamespace(_target_="another.Launcher"))
    monkeypatch.setattr(jobs.HydraConfig, "get", lambda: hydra)
    monkeypatch.delenv(jobs.JOBS_AT_ONCE, raising=False)

    def set_line(line: str) -> None:
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\ncat > {tmp_path}/task\n{line}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(processes.sys, "executable", str(shell))

    return set_line


def test_killed_process_is_recorded_and_can_continue(
    tree: dict[str, Any], folder: Path, separate: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    separate("kill -9 $$")
    run_job(tree, folder)
    record = result(folder)
    assert (record.status, record.error) == ("running", "killed by SIGKILL")
    assert (record.model_name, record.command) == ("test_efficientnet", COMMAND)
    assert capsys.readouterr().out == "[job] running: killed by SIGKILL\n"
    Record(**INTERRUPTED, scores=[(2, 1.5)]).write(folder)
    run_job(tree, folder)
    record = result(folder)
    assert (record.status, record.error, record.iterations) == ("running", "killed by SIGKILL", 2)
    assert record.scores == [(2, 1.5)]


def test_process_killed_after_its_run_has_ended_is_done(
    tree: dict[str, Any], folder: Path, separate: Callable[[str], None]
) -> None:
    Record(**INTERRUPTED).write(folder)
    done = json.dumps({**DONE, "pid": 1, "host": "here"})
    separate(f"echo '{done}' > {folder}/result.json; kill -9 $$")
    run_job(tree, folder)
    assert (result(folder).status, result(folder).error) == ("done", None)


def test_process_receives_its_task_and_its_output_is_kept(
    tree: dict[str, Any], folder: Path, tmp_path: Path, separate: Callable[[str], None]
) -> None:
    done = json.dumps({**DONE, "pid": 1, "host": "here"})
    separate(f"echo seen; echo wrong >&2; echo '{done}' > {folder}/result.json")
    run_job(tree, folder, num_gpus=2)
    task = json.loads((tmp_path / "task").read_text())
    assert task["tree"] == tree
    assert (task["folder"], task["command"]) == (str(folder), COMMAND)
    assert task["options"]["num_gpus"] == 2
    assert task["options"]["resume"]
    assert (folder / "output.txt").read_text() == "seen\nwrong\n"


def test_runs_at_the_same_time_share_the_machine(
    tree: dict[str, Any],
    folder: Path,
    separate: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(jobs.JOBS_AT_ONCE, "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr("d2timm.sweep.slots.count_cores", lambda: 6)
    done = json.dumps({**DONE, "pid": 1, "host": "here"})
    separate(f"echo $OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES; echo '{done}' > {folder}/result.json")
    run_job(tree, folder)
    assert (folder / "output.txt").read_text() == "3 4\n"


def test_launcher_that_ends_kills_its_run(
    tree: dict[str, Any], folder: Path, separate: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the signal of a preemption; the folder is then free for another process."""
    separate("exec sleep 60")
    children: list[Any] = []
    popen = processes.subprocess.Popen

    def start(*arguments: Any, **more: Any) -> Any:
        children.append(popen(*arguments, **more))
        monkeypatch.setattr(children[0], "communicate", failing(SystemExit(144)))
        return children[0]

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    with pytest.raises(SystemExit):
        run_job(tree, folder)
    assert children[0].returncode == -signal.SIGTERM
    assert Record.read(folder) is None


@pytest.mark.parametrize(("error", "code"), [(None, 0), (MemoryError("no room"), 1), (ConfigError("no"), 1)])
def test_process_runs_its_task(
    error: Exception | None,
    code: int,
    tree: dict[str, Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def start(tree: dict[str, Any], options: Namespace, command: list[str]) -> None:
        seen.append((tree, options.resume, command))
        if error:
            raise error

    watches: list[Any] = []
    monkeypatch.setattr(processes, "start_run", start)
    monkeypatch.setattr(
        threading, "Thread", lambda **more: SimpleNamespace(start=lambda: watches.append(more))
    )
    task = {"tree": tree, "folder": str(folder), "options": vars(flags(resume=True)), "command": COMMAND}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(task)))
    assert processes.main() == code
    assert seen == [(tree, True, COMMAND)]
    assert watches[0]["args"][0] == os.getppid()
    assert watches[0]["daemon"]
    if error:
        assert result(folder).status == "failed"


@pytest.mark.parametrize("lost", [True, False])
def test_interrupted_run_says_whether_its_worker_was_killed(
    lost: bool, tree: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def start(*args: Any) -> None:
        Record(status="interrupted", error="interrupted by SIGTERM").write(folder)
        assert asked.wait(5)
        raise Interrupted(signal.SIGTERM)

    if lost:
        parents = itertools.chain([1], itertools.repeat(2))
        monkeypatch.setattr(os, "getppid", lambda: next(parents))
        monkeypatch.setattr(os, "kill", lambda pid, number: asked.set())
    else:
        monkeypatch.setattr(jobs, "_stop_with", lambda *args: asked.set())
    monkeypatch.setattr(processes, "start_run", start)
    task = {"tree": tree, "folder": str(folder), "options": vars(flags(resume=True)), "command": COMMAND}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(task)))
    assert processes.main() == 143
    expected = "its worker process was killed" if lost else "interrupted by SIGTERM"
    assert (result(folder).status, result(folder).error) == ("interrupted", expected)


def test_no_run_starts_while_its_sweep_is_stopping(
    tree: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "start_run", failing(AssertionError("started")))
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / REQUEST).touch()
    jobs._run_in_sweep(tree, folder, flags(), COMMAND)
    assert not (folder / "result.json").exists()
