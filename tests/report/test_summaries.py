"""What d2timm report prints about sweeps, choices and runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from helpers.pages import put_choice, put_full, put_sweep

from d2timm.report.page.source import open_source
from d2timm.report.summaries import print_text
from d2timm.report.tables import as_json, summary
from d2timm.runs.choice import Choice


def test_sweep_and_run(tmp_path: Path) -> None:
    for folder in (put_sweep(tmp_path / "sweep"), put_full(tmp_path / "run", 5.0)):
        source = open_source(folder)
        assert print_text(source) == summary(source.entries) + "\n"
        assert print_text(source, json_format=True) == as_json(source.entries)


def test_choice(tmp_path: Path) -> None:
    choice = put_choice(tmp_path)
    source = open_source(tmp_path)
    lines = print_text(source).splitlines()
    assert lines[0] == "model2 is best with 90 %."
    assert lines[4].split()[:3] == ["model2", "chosen", "21.00"]
    assert lines[-1] == "  d2timm predict"
    assert json.loads(print_text(source, json_format=True)) == json.loads(json.dumps(asdict(choice)))


def test_choice_without_candidates(tmp_path: Path) -> None:
    Choice().write(tmp_path)
    assert print_text(open_source(tmp_path)) == "Nothing is decided yet.\n"
