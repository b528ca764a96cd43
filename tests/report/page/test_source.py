"""Which runs a page shows, for folders of all kinds and in any state."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.pages import put_choice, put_full, put_sweep
from helpers.run_folders import put

from d2timm import ConfigError
from d2timm.report.page.source import open_source, state_of
from d2timm.runs.choice import Choice


def test_sweep(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    source = open_source(tmp_path)
    assert (source.choice, source.is_run) == (None, False)
    assert [run.label for run in source.runs] == ["model2", "model1", "model0"]
    assert [entry.name for entry in source.entries] == [f"backbone=model{i}" for i in (2, 1, 0)]
    assert source.places == {f"backbone=model{i}": 2 - i for i in range(3)}


def test_run_and_the_earlier_one_that_was_moved_aside_in_it(tmp_path: Path) -> None:
    put(tmp_path / "run", 5)
    put(tmp_path / "run" / "run~1", 6)
    (tmp_path / "run" / "inference").mkdir()
    source = open_source(tmp_path / "run")
    assert source.is_run
    assert [run.folder for run in source.runs] == [tmp_path / "run"]


def test_run_folders_in_a_run_folder_are_a_sweep(tmp_path: Path) -> None:
    put(tmp_path / "sweep", 5)
    put(tmp_path / "sweep" / "a", 6)
    source = open_source(tmp_path / "sweep")
    assert not source.is_run
    assert [run.label for run in source.runs] == ["a"]


def test_choice(tmp_path: Path) -> None:
    put_choice(tmp_path)
    source = open_source(tmp_path)
    assert [(run.label, run.entry) for run in source.runs] == [
        ("finals/model2-0", "model2"),
        ("finals/model2-1", "model2"),
        ("rungs/model2", "model2"),
        ("winner/model2", "model2"),
        ("finals/model1-0", "model1"),
        ("finals/model1-1", "model1"),
        ("rungs/model1", "model1"),
        ("rungs/model0", "model0"),
    ]
    assert [(entry.name, len(entry.runs), entry.score) for entry in source.entries] == [
        ("model2", 2, 20.5),
        ("model1", 2, 20.5),
        ("model0", 1, 10.0),
    ]


def test_choice_at_its_beginning(tmp_path: Path) -> None:
    Choice().write(tmp_path)
    source = open_source(tmp_path)
    assert source.choice == Choice()
    assert (source.runs, source.entries) == ((), ())


def test_folders_of_a_choice_may_be_nested_or_have_other_names(tmp_path: Path) -> None:
    put_choice(tmp_path, finals=[], verdict=None)
    put_full(tmp_path / "rungs" / "model 0" / "2", 5.0, model_name="model0")
    put_full(tmp_path / "rungs" / "other" / "model1", 6.0, model_name="")
    put_full(tmp_path / "rungs" / "unknown", 6.0)
    entries = {run.label: run.entry for run in open_source(tmp_path).runs}
    assert entries["rungs/model 0/2"] == "model0"
    assert entries["rungs/other/model1"] == "model1"
    assert entries["winner/model2"] == "model2"
    assert entries["rungs/unknown"] == "rungs/unknown"


@pytest.mark.parametrize("name", ["../outside", "/", "", ".", "finals/missing", "a\0b", "x" * 5000, "link"])
def test_folders_outside_of_a_choice_are_not_read(name: str, tmp_path: Path) -> None:
    put_full(tmp_path / "outside", 99.0)
    choice = put_choice(tmp_path / "choice")
    (tmp_path / "choice" / "link").symlink_to(tmp_path / "outside")
    choice.finals[0].folder = name
    choice.write(tmp_path / "choice")
    labels = [run.label for run in open_source(tmp_path / "choice").runs]
    assert "rungs/model0" in labels
    assert not any("outside" in label or "link" in label for label in labels)


@pytest.mark.parametrize("wrong", ["missing", "file", "empty"])
def test_other_folders_are_errors_of_one_line(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="the folder of a sweep") as caught:
        open_source(tmp_path / wrong)
    assert "\n" not in str(caught.value)


def test_broken_choice_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "choice.json").write_text("{")
    with pytest.raises(ConfigError, match=r"choice\.json"):
        open_source(tmp_path)


def test_broken_run_does_not_hide_the_others(tmp_path: Path) -> None:
    put_sweep(tmp_path, 2)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text("{")
    source = open_source(tmp_path)
    assert [run.run.status for run in source.runs] == ["done", "done", "unreadable"]


@pytest.mark.parametrize("name", ["result.json", "metrics.json", "inference/samples.json"])
def test_state_follows_the_files_of_runs(name: str, tmp_path: Path) -> None:
    put_sweep(tmp_path, 2)
    before = state_of(tmp_path)
    (tmp_path / "leaderboard.md").write_text("")
    assert state_of(tmp_path) == before
    file = tmp_path / "backbone=model1" / name
    os.utime(file, ns=(1, 1))
    assert state_of(tmp_path) != before


def test_state_follows_a_choice_and_new_runs(tmp_path: Path) -> None:
    choice = put_choice(tmp_path)
    states = [state_of(tmp_path)]
    choice.ended = None
    choice.write(tmp_path)
    states.append(state_of(tmp_path))
    put(tmp_path / "rungs" / "new")
    states.append(state_of(tmp_path))
    assert len(set(states)) == 3
    assert state_of(tmp_path / "missing") == state_of(tmp_path / "missing")


def test_names_of_candidates_are_read_from_records(tmp_path: Path) -> None:
    put_choice(tmp_path)
    file = tmp_path / "rungs" / "model0" / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_name": "other"}))
    entries = {run.label: run.entry for run in open_source(tmp_path).runs}
    assert entries["rungs/model0"] == "model0", "by the name of its folder"
