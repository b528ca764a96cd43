"""Slow checks run in full if their code has changed, and on a sample otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import sampling

SOME, NONE = (pytest.mark.sampled("check", **options).mark for options in ({"every": 3}, {}))
MARKS: dict[str, Any] = {
    **{f"test_some[{number}]": SOME for number in range(7)},
    "test_none": NONE,
    "test_always": None,
}


@pytest.mark.parametrize(("changed", "full"), [(False, False), (True, False), (False, True)])
def test_sample(changed: bool, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "changed", lambda check: changed)
    items: Any = [
        SimpleNamespace(nodeid=name, get_closest_marker={sampling.MARK: mark}.get)
        for name, mark in MARKS.items()
    ]
    runs, left_out = sampling.select(items, full)
    assert len(runs) + len(left_out) == len(items)
    sample = ["test_some[0]", "test_some[3]", "test_some[6]", "test_always"]
    assert [item.nodeid for item in runs] == ([*MARKS] if changed or full else sample)


def test_fingerprint_follows_code_and_not_words(tmp_path: Path) -> None:
    file = tmp_path / "code" / "module.py"
    file.parent.mkdir()
    file.write_text("x = 1\n")
    before = sampling.fingerprint([file.parent])
    file.write_text("x = 1  # a comment\n")
    assert sampling.fingerprint([file.parent]) == before
    file.write_text("x = 2\n")
    assert sampling.fingerprint([file.parent]) != before


def test_code_of_all_checks_exists() -> None:
    for check in sampling.CHECKS:
        assert isinstance(sampling.changed(check), bool)
