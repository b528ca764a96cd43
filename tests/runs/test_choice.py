"""The record of a choice is read as it was written, and other files are errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d2timm import ConfigError
from d2timm.runs.choice import FILE, Candidate, Choice, Comparison, Final, Rung, Stage, Verdict


def make_choice() -> Choice:
    return Choice(
        command=["d2timm", "choose"],
        settings={"overrides": ["data.root=x"]},
        started=1.5,
        deadline=9.0,
        images={"train": 3},
        plan=[2.0],
        stages=[Stage("data", 1.0, 2.0, "done", ["3 images"])],
        candidates=[
            Candidate("a", rungs=[Rung(1.0, 5, 30.0)]),
            Candidate("b", dropped="rungs", reason="low"),
        ],
        finals=[Final("a", "finals/a", 1, 2.5, score=31.0, counts=True)],
        verdict=Verdict("a", "a is best", [Comparison("a", 31.0, 30.0, 32.0, 0.0, 0.9, False)]),
    )


def test_a_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Choice.read(tmp_path) is None
    choice = make_choice()
    choice.write(tmp_path)
    assert Choice.read(tmp_path) == choice
    assert [candidate.name for candidate in choice.remaining] == ["a"]


def test_keys_of_later_versions_are_left_out(tmp_path: Path) -> None:
    make_choice().write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    content["candidates"][0]["new"] = 1
    (tmp_path / FILE).write_text(json.dumps({**content, "more": []}))
    assert Choice.read(tmp_path) == make_choice()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"candidates": [5]}',
        '{"candidates": [{"name": 5}]}',
        '{"candidates": [{}]}',
        '{"verdict": "a"}',
        '{"started": "now"}',
        '{"plan": [NaN]}',
        "[" * 10**5,
    ],
)
def test_other_files_are_errors_of_one_line(tmp_path: Path, content: Any) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ConfigError) as caught:
        Choice.read(tmp_path)
    assert str(tmp_path / FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_folders_are_safe() -> None:
    assert Candidate("hf-hub:some/model.tag").folder == "hf-hub_some_model.tag"
    with pytest.raises(ValueError, match="not measured"):
        _ = Candidate("a").pace
