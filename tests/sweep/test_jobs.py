"""Jobs of a sweep: their folders' names, what they do in a folder with a past, and failures that are told."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from d2timm import ConfigError
from d2timm.config.lazy import lazy as config
from d2timm.runs.record import Record, recorded
from d2timm.sweep.callback import jobs
from d2timm.sweep.jobs import LONGEST_NAME, job_name

MASK = "mask_rcnn_timm.py"
MODEL = "model.backbone.bottom_up.model_name"
COMMAND = ["python", "scripts/hydra_train.py", "backbone=test_resnet"]

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
def test_name_is_a_safe_name_of_a_folder(overrides: str) -> None:
    name = job_name(overrides)
    assert re.fullmatch(r"[A-Za-z0-9_.=,+-]+", name)
    assert not name.startswith(".")
    assert len(os.fsencode(name)) <= LONGEST_NAME + 7
    assert job_name(overrides) == name, "the same again"


@given(TEXTS, TEXTS)
@example("name=a/b", "name=a:b")
@example("name=a/b", "name=a_b")
@example("name=a", "name=a_")
@example("name=a", "name=.a")
@example("x=" + "a" * 200, "x=" + "a" * 201)
@example("name=é", "name=è")
@example("", "_")
def test_names_that_differ_in_unsafe_characters_only_are_told_apart(one: str, other: str) -> None:
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
def test_simple_names_are_readable(overrides: str, name: str) -> None:
    assert job_name(overrides) == name


def test_models_of_the_hub_have_a_name() -> None:
    name = job_name(f"{MODEL}=hf-hub:timm/resnet18.a1_in1k")
    assert re.fullmatch(r"model_name=hf-hub_timm_resnet18\.a1_in1k-[0-9a-f]{6}", name)
    assert job_name(f"{MODEL}=hf-hub:timm_resnet18.a1_in1k") != name


# The tree of a job


def test_tree_is_on_its_own() -> None:
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
        tree = jobs._on_its_own(cfg)
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
    assert json.loads(json.dumps(tree)) == tree, "it is sent to other processes"


# Folders with a past


@pytest.fixture
def tree(tiny: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """The tree of a job of four iterations."""
    plain: dict[str, Any] = config.to_plain(tiny(MASK, tmp_path / "sweep" / "job"))
    return plain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of that job, empty as Hydra makes it."""
    (tmp_path / "sweep" / "job").mkdir(parents=True)
    return tmp_path / "sweep" / "job"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, as with Hydra's basic launcher."""
    hydra = SimpleNamespace(launcher=SimpleNamespace(_target_=jobs.HERE))
    monkeypatch.setattr(jobs.HydraConfig, "get", lambda: hydra)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, here: None) -> list[Namespace]:
    """The options of each start; what is started is done at once."""
    calls: list[Namespace] = []

    def start(tree: dict[str, Any], options: Namespace, command: list[str]) -> None:
        calls.append(options)
        Record(status="done", iterations=4, max_iter=4).write(Path(tree["train"]["output_dir"]))

    monkeypatch.setattr(jobs, "_start", start)
    return calls


def flags(**more: Any) -> Namespace:
    """Parsed flags of scripts/hydra_train.py."""
    defaults = {"resume": False, "eval_only": False, "dry_run": False, "num_gpus": 1, "num_machines": 1}
    own = {"machine_rank": 0, "dist_url": "auto", "repeat_failed": False, "resume_lost": True}
    return Namespace(**{**defaults, **own, **more})


def do(tree: dict[str, Any], folder: Path, **more: Any) -> None:
    jobs._run_in_sweep(tree, folder, flags(**more), COMMAND)


DONE = {"status": "done", "iterations": 4, "max_iter": 4}
PAUSED = {"status": "done", "iterations": 2, "max_iter": 4}
STOPPED = {**PAUSED, "stopped": "stopped at iteration 2"}
CUT_OFF = {"status": "running", "iterations": 2, "max_iter": 4}
TOLD = {**CUT_OFF, "error": "killed by SIGKILL"}
FAILED = {"status": "failed", "iterations": 2, "max_iter": 4, "error": "FloatingPointError: nan"}
REPEAT, NO_LOSSES = {"repeat_failed": True}, {"resume_lost": False}


@pytest.mark.parametrize(
    ("earlier", "pause", "more", "goes_on"),
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
        (CUT_OFF, None, {}, True),
        (CUT_OFF, None, NO_LOSSES, True),
        (TOLD, None, {}, True),
        (TOLD, None, NO_LOSSES, False),
        (FAILED, None, {}, False),
        (FAILED, None, NO_LOSSES, False),
    ],
)
def test_what_a_folder_holds_decides(
    earlier: dict[str, Any],
    pause: int | None,
    more: dict[str, Any],
    goes_on: bool,
    tree: dict[str, Any],
    folder: Path,
    started: list[Namespace],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Record(**earlier).write(folder)
    before = (folder / "result.json").read_bytes()
    tree["train"]["pause_at"] = pause
    do(tree, folder, **more)
    told = capsys.readouterr().out
    assert not (folder.parent / "job~1").exists()
    if goes_on:
        (options,) = started
        assert options.resume, "what is there is gone on with"
        assert told == "[job] done: no score\n"
    else:
        assert not started
        assert (folder / "result.json").read_bytes() == before
        assert told == f"[job] {earlier['status']} before\n"


def test_empty_folder_is_trained_in(tree: dict[str, Any], folder: Path, started: list[Namespace]) -> None:
    do(tree, folder)
    assert len(started) == 1


def test_failure_is_repeated_from_the_start_when_asked_for(
    tree: dict[str, Any], folder: Path, started: list[Namespace]
) -> None:
    Record(**FAILED).write(folder)
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    do(tree, folder, **REPEAT)
    assert len(started) == 1
    kept = Record.read(folder.parent / "job~1")
    assert kept is not None
    assert kept.status == "failed"
    assert not (folder / "last_checkpoint").exists()


def test_folder_that_is_trained_in_is_left_alone(
    tree: dict[str, Any], folder: Path, started: list[Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded(Record(), folder):
        do(tree, folder)
    assert not started
    assert capsys.readouterr().out == "[job] is being trained by another process\n"


def test_score_is_told(
    tree: dict[str, Any], folder: Path, here: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def start(*arguments: Any) -> None:
        Record(status="done", metrics={"bbox": {"AP": 12.345}}).write(folder)

    monkeypatch.setattr(jobs, "_start", start)
    do(tree, folder)
    assert capsys.readouterr().out == "[job] done: bbox/AP 12.35\n"


# The same settings


@pytest.mark.parametrize("earlier", [DONE, PAUSED, CUT_OFF], ids=["done", "paused", "cut off"])
def test_folder_of_other_settings_is_refused(
    earlier: dict[str, Any], tree: dict[str, Any], folder: Path, started: list[Namespace]
) -> None:
    config.save(OmegaConf.create(tree), folder / "config.yaml")
    Record(**earlier).write(folder)
    rate = tree["optimizer"]["lr"]
    tree["optimizer"]["lr"] = 0.5
    with pytest.raises(ConfigError) as refused:
        do(tree, folder)
    assert str(refused.value) == (
        f"{folder} holds a run of other settings, such as optimizer.lr={rate} (here 0.5): "
        "choose another hydra.sweep.dir"
    )
    assert not started


def test_settings_that_do_not_matter_may_change(tree: dict[str, Any], folder: Path) -> None:
    config.save(OmegaConf.create(tree), folder / "config.yaml")
    jobs._check_same(tree, folder)
    tree["train"].update(output_dir="elsewhere", pause_at=2, stop_below_median=3, threads=5)
    jobs._check_same(tree, folder)
    tree["data"]["name"] = "auto"  # which set that is, is known only when the run starts
    jobs._check_same(tree, folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [("data.name", "shapes"), ("model.extra", 1), ("model.backbone.bottom_up.remaps", ["res2"])],
    ids=["data", "a key that is new", "a list"],
)
def test_settings_that_matter(place: str, value: Any, tree: dict[str, Any], folder: Path) -> None:
    config.save(OmegaConf.create(tree), folder / "config.yaml")
    changed = OmegaConf.create(tree)
    OmegaConf.update(changed, place, value, force_add=True)
    with pytest.raises(ConfigError, match=re.escape(place)):
        jobs._check_same(config.to_plain(changed), folder)


def test_run_that_was_cut_off_before_it_had_a_config_can_go_on(tree: dict[str, Any], folder: Path) -> None:
    jobs._check_same(tree, folder)


# Failures


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


def result(folder: Path) -> Record:
    found = Record.read(folder)
    assert found is not None
    return found


def test_misspelt_model_is_the_failure_of_its_job(
    tree: dict[str, Any], folder: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tree["model"]["backbone"]["bottom_up"]["model_name"] = "test_resnett"
    do(tree, folder)
    told = result(folder)
    assert told.status == "failed"
    assert "did you mean test_resnet" in str(told.error)
    assert (told.model_name, told.command, told.metric) == ("test_resnett", COMMAND, "bbox/AP")
    out, err = capsys.readouterr()
    assert out == f"[job] failed: {told.error}\n"
    assert "Traceback" not in err, "a user's mistake"


def test_run_that_diverges_is_the_failure_of_its_job(
    tree: dict[str, Any], folder: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tree["optimizer"]["lr"] = 1e30
    do(tree, folder)
    told = result(folder)
    assert told.status == "failed"
    assert str(told.error).startswith("FloatingPointError: ")
    assert told.model_name == "test_efficientnet"
    assert told.max_iter == 4
    assert "Traceback" in capsys.readouterr().err, "for those who look into it"


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
    here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_start", failing(error))
    do(tree, folder)
    assert (result(folder).status, result(folder).error) == ("failed", reason)


def test_failure_of_a_run_that_goes_on_keeps_what_it_had(
    tree: dict[str, Any], folder: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Record(**CUT_OFF, scores=[(2, 1.5)]).write(folder)
    monkeypatch.setattr(jobs, "_start", failing(OSError("disk full")))
    do(tree, folder)
    told = result(folder)
    assert (told.status, told.error, told.iterations) == ("failed", "OSError: disk full", 2)
    assert told.scores == [(2, 1.5)]


def test_interrupt_ends_the_sweep(
    tree: dict[str, Any], folder: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_start", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        do(tree, folder)


def test_nothing_of_a_run_is_left_in_the_process(tree: dict[str, Any], folder: Path, here: None) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from d2timm.data.catalog import forget

    forget()
    before = set(DatasetCatalog.list()), set(MetadataCatalog.list())
    tree["train"].update(max_iter=1, eval_period=0)
    do(tree, folder)
    assert result(folder).status == "done"
    assert (set(DatasetCatalog.list()), set(MetadataCatalog.list())) == before


# Processes of their own


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Jobs run in a process of their own, which here is a line of shell: ``apart(line)``."""
    hydra = SimpleNamespace(launcher=SimpleNamespace(_target_="another.Launcher"))
    monkeypatch.setattr(jobs.HydraConfig, "get", lambda: hydra)
    monkeypatch.delenv(jobs.AT_ONCE, raising=False)

    def set_line(line: str) -> None:
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\ncat > {tmp_path}/told\n{line}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(jobs.sys, "executable", str(shell))

    return set_line


def test_killed_process_is_told_and_can_go_on(
    tree: dict[str, Any], folder: Path, apart: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    apart("kill -9 $$")
    do(tree, folder)
    told = result(folder)
    assert (told.status, told.error) == ("running", "killed by SIGKILL")
    assert (told.model_name, told.command) == ("test_efficientnet", COMMAND)
    assert capsys.readouterr().out == "[job] running: killed by SIGKILL\n"
    Record(**CUT_OFF, scores=[(2, 1.5)]).write(folder)
    do(tree, folder)
    told = result(folder)
    assert (told.status, told.error, told.iterations) == ("running", "killed by SIGKILL", 2)
    assert told.scores == [(2, 1.5)]


def test_process_killed_after_its_end_is_done(
    tree: dict[str, Any], folder: Path, apart: Callable[[str], None]
) -> None:
    Record(**CUT_OFF).write(folder)
    done = json.dumps({**DONE, "pid": 1, "host": "here"})
    apart(f"echo '{done}' > {folder}/result.json; kill -9 $$")
    do(tree, folder)
    assert (result(folder).status, result(folder).error) == ("done", None)


def test_process_is_told_all_and_its_output_is_kept(
    tree: dict[str, Any], folder: Path, tmp_path: Path, apart: Callable[[str], None]
) -> None:
    done = json.dumps({**DONE, "pid": 1, "host": "here"})
    apart(f"echo seen; echo wrong >&2; echo '{done}' > {folder}/result.json")
    do(tree, folder, num_gpus=2)
    told = json.loads((tmp_path / "told").read_text())
    assert told["tree"] == tree
    assert (told["folder"], told["command"]) == (str(folder), COMMAND)
    assert told["options"]["num_gpus"] == 2
    assert told["options"]["resume"]
    assert (folder / "output.txt").read_text() == "seen\nwrong\n"


def test_runs_at_once_have_their_share(
    tree: dict[str, Any],
    folder: Path,
    apart: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(jobs.AT_ONCE, "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr("d2timm.sweep.slots._cores", lambda: 6)
    done = json.dumps({**DONE, "pid": 1, "host": "here"})
    apart(f"echo $OMP_NUM_THREADS $CUDA_VISIBLE_DEVICES; echo '{done}' > {folder}/result.json")
    do(tree, folder)
    assert (folder / "output.txt").read_text() == "3 4\n"


def test_process_that_is_left_ends_its_run(
    tree: dict[str, Any], folder: Path, apart: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the signal of a preemption: the folder is free for whoever goes on."""
    apart("exec sleep 60")
    children: list[Any] = []
    popen = jobs.subprocess.Popen

    def start(*arguments: Any, **more: Any) -> Any:
        children.append(popen(*arguments, **more))
        monkeypatch.setattr(children[0], "communicate", failing(SystemExit(144)))
        return children[0]

    monkeypatch.setattr(jobs.subprocess, "Popen", start)
    with pytest.raises(SystemExit):
        do(tree, folder)
    assert children[0].returncode == -9
    assert Record.read(folder) is None


@pytest.mark.parametrize(("error", "code"), [(None, 0), (MemoryError("no room"), 1), (ConfigError("no"), 1)])
def test_a_process_does_what_it_is_told(
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
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(
        threading, "Thread", lambda **more: SimpleNamespace(start=lambda: watches.append(more))
    )
    told = {"tree": tree, "folder": str(folder), "options": vars(flags(resume=True)), "command": COMMAND}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(told)))
    assert jobs.main() == code
    assert seen == [(tree, True, COMMAND)]
    assert watches[0]["args"] == (os.getppid(), folder)
    assert watches[0]["daemon"]
    if error:
        assert result(folder).status == "failed"


class _Ended(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("earlier", [CUT_OFF, DONE, FAILED, None], ids=["running", "done", "failed", "none"])
def test_run_whose_worker_was_killed_says_so(
    earlier: dict[str, Any] | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        Record(**earlier).write(folder)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(os, "_exit", failing(_Ended()))
    with pytest.raises(_Ended):
        jobs._end_with(12345, folder)
    if earlier:
        told = "its worker process was killed" if earlier is CUT_OFF else earlier.get("error")
        assert (result(folder).status, result(folder).error) == (earlier["status"], told)


def test_run_whose_record_cannot_be_written_ends_with_its_worker_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Record(**CUT_OFF).write(folder)
    monkeypatch.setattr(Record, "write", failing(OSError("disk full")))
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(os, "_exit", failing(_Ended()))
    with pytest.raises(_Ended):
        jobs._end_with(12345, folder)
