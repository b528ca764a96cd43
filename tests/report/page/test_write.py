"""report.html: one file that needs no network, whatever the runs hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import EVIL, Document, put_choice, put_full, put_sweep
from helpers.run_folders import put

from d2timm.report import write_page
from d2timm.report.page.write import PAGE
from d2timm.runs.choice import Choice


def page_of(folder: Path) -> Document:
    assert write_page(folder) == folder / PAGE
    return Document(folder / PAGE)


PUT: dict[str, Callable[[Path], Any]] = {
    "sweep": put_sweep,
    "choice": put_choice,
    "run": lambda folder: put_full(folder, 10.0),
}
SECTIONS = {
    "sweep": ["Leaderboard", "Score against cost", "Images", "Training", "Classes", "Configs"],
    "choice": [
        *("Candidates", "Score against cost", "Images", "Finals", "Rungs", "Stages", "Training", "Classes"),
        "Configs",
    ],
    "run": ["Metrics", "Images", "Training", "Classes"],
}


@pytest.mark.parametrize("kind", PUT)
def test_page_is_one_file_with_a_section_for_everything_known(kind: str, tmp_path: Path) -> None:
    PUT[kind](tmp_path / kind)
    page = page_of(tmp_path / kind)
    assert page.sections == SECTIONS[kind]
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.elements:
        assert not any(name.startswith("on") for name in attributes), "no script in attributes"
        address = attributes.get("src") or attributes.get("href") or "#"
        assert address.startswith(("#", "data:")), (tag, attributes)
    assert {"header", "main", "nav", "h1"} <= {tag for tag, _, _ in page.elements}
    assert page.find(href="#main"), "a link that skips to the content"


def test_page_without_results_has_no_empty_parts(tmp_path: Path) -> None:
    put(tmp_path / "a", status="running")
    page = page_of(tmp_path)
    assert page.sections == ["Leaderboard"]
    assert page.data == {"figures": {}, "images": None, "configs": None}
    assert (tmp_path / PAGE).stat().st_size < 100_000, "without plots, the library for them is not needed"
    Choice().write(tmp_path / "a")
    assert page_of(tmp_path / "a").sections == []


@pytest.mark.parametrize("kind", PUT)
def test_names_of_classes_files_and_models_are_no_html(kind: str, tmp_path: Path) -> None:
    PUT[kind](tmp_path / kind)
    for file in (tmp_path / kind).rglob("result.json"):
        content = json.loads(file.read_text())
        changes = {"model_name": EVIL, "notes": [EVIL], "command": ["d2timm", EVIL]}
        file.write_text(json.dumps({**content, **changes}))
    if kind == "sweep":
        put(tmp_path / kind / "<img src=x onerror=alert(1)>", 1, metric="bbox/AP")
    page = page_of(tmp_path / kind)
    assert "img" not in [tag for tag, _, _ in page.elements]
    scripts = [text for tag, _, text in page.elements if tag == "script"]
    assert len(scripts) == 3, "data, plotly, and the script of the page"
    assert EVIL in page.data["images"]["classes"]
    assert any(EVIL in text for text in page.texts("td", "th", "code", "p"))


def test_policy_allows_the_scripts_of_the_page_only(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    page = page_of(tmp_path)
    found = page.find(**{"http-equiv": "Content-Security-Policy"})
    assert found
    policy = found[1]["content"] or ""
    assert policy.startswith("default-src 'none'; ")
    assert len(re.findall(r"'sha256-[\w+/=]+'", policy)) == 2
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert "connect-src 'none'" in policy


def test_odd_characters(tmp_path: Path) -> None:
    put_full(tmp_path / "zebra ä 斑馬 \x1b[31m", 5.0)
    put_full(tmp_path / "b'\"&", 6.0, model_name="\ud800")
    page = page_of(tmp_path)
    assert "b'\"&" in page.texts("th")
    assert any("斑馬" in text for text in page.texts("th"))
    assert "\x1b" not in (tmp_path / PAGE).read_text("utf-8")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "result.json", "inference/samples.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\x00", b'{"a": NaN}', b"[" * 10_000, None])
def test_one_bad_run_never_prevents_the_page(name: str, content: bytes | None, tmp_path: Path) -> None:
    put_sweep(tmp_path, 2)
    file = tmp_path / "backbone=model0" / name
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert "Leaderboard" in page_of(tmp_path).sections


def test_same_folders_give_the_same_page(tmp_path: Path) -> None:
    put_choice(tmp_path)
    first = write_page(tmp_path).read_bytes()
    assert write_page(tmp_path).read_bytes() == first


def test_twenty_runs(tmp_path: Path) -> None:
    put_sweep(tmp_path, 20)
    page = page_of(tmp_path)
    assert len(page.data["images"]["runs"]) == 20
    assert (tmp_path / PAGE).stat().st_size < 6_000_000, "5 MB are plotly"
