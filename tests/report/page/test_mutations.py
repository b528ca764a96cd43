"""Pages about damaged folders: each one is written, or is a ConfigError."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.mutations import mutated
from helpers.pages import Document, put_choice, put_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.report.page.content import make_content
from d2timm.report.page.source import open_source
from d2timm.report.page.write import render


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "choice"
    put_choice(folder)
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_sweep(tmp_path_factory.mktemp("pages") / "sweep", 2)


def check(folder: Path) -> None:
    try:
        source = open_source(folder)
    except ConfigError:
        return
    (folder.parent / "page.html").write_bytes(render(make_content(source)))
    assert Document(folder.parent / "page.html").data


@settings(max_examples=40)
@given(data=st.data())
def test_choices(choice: Path, data: st.DataObject) -> None:
    file = choice / "choice.json"
    original = file.read_text()
    try:
        file.write_text(json.dumps(data.draw(mutated(json.loads(original)))))
        check(choice)
    finally:
        file.write_text(original)


@settings(max_examples=60)
@given(data=st.data())
def test_runs(sweep: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["result.json", "inference/samples.json"]))
    file = sweep / "backbone=model0" / name
    original = file.read_text()
    try:
        file.write_text(json.dumps(data.draw(mutated(json.loads(original)))))
        check(sweep)
    finally:
        file.write_text(original)
