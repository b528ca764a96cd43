"""Leaderboards in Markdown, CSV, JSON and the terminal show the same facts."""

from __future__ import annotations

import csv
import json
import re
import threading
from pathlib import Path
from typing import Any

from helpers.run_folders import put

from d2timm.report.entries import make_entries
from d2timm.report.tables import summary, write_tables
from d2timm.runs.status import read_runs

FILES = ("leaderboard.md", "leaderboard.csv", "leaderboard.json")


def strict_json(file: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return dict(json.loads(file.read_text(), parse_constant=refuse))


def table_rows(markdown: str) -> list[list[str]]:
    """Rows of a table, header first, as GitHub splits them."""
    rows = [line for line in markdown.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def put_sweep(sweep: Path) -> None:
    """A run of each status, repeats and a tie."""
    for seed, score in enumerate((10.0, 12.0)):
        put(
            sweep / f"backbone=resnet18d,seed={seed}",
            score,
            command=["d2timm", "sweep", "backbone=resnet18d", f"train.seed={seed}", "x=a b"],
            model_name="resnet18d",
            parameters=12_345_678,
            multiply_adds=3_210_000_000,
            train_seconds=61.4,
            images_per_second=8.0,
            peak_memory_bytes=2**40,
        )
    put(sweep / "backbone=vit", 11.001, iterations=50, stopped="AP has not risen | for 3 evaluations")
    put(sweep / "failed_", status="failed", error="ValueError: a|b <x> `y` *z*")
    put(sweep / "killed", status="running", iterations=7)
    (sweep / "odd").mkdir()
    (sweep / "odd" / "result.json").write_text("{")


def test_markdown(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    write_tables(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    header, *rows = table_rows(text)
    assert {len(row) for row in rows} == {len(header)}
    first, second, killed, failed, odd = (dict(zip(header, row, strict=True)) for row in rows)
    assert first == {
        "rank": "1=",
        "name": "backbone=resnet18d",
        "seeds": "×2",
        "bbox/AP": "11.00 ± 1.41",
        "box AP50": "16.50",
        "params (M)": "12.35",
        "GFLOPs": "3.21",
        "train (s)": "61",
        "images/s": "8.0",
        "memory (GiB)": "1024.00",
        "iterations": "100",
        "status": "done",
        "reason": "",
    }
    assert (second["rank"], second["status"]) == ("1=", "stopped")
    assert second["reason"] == r"AP has not risen \| for 3 evaluations"
    assert failed["name"] == r"failed\_"
    assert failed["reason"] == r"ValueError: a\|b \<x\> \`y\` \*z\*"
    assert (killed["status"], odd["status"]) == ("killed", "unreadable")
    assert "6 runs: 2 done, 1 stopped, 1 killed, 1 failed, 1 unreadable." in text
    assert "share a rank" in text
    assert "multiply-adds" in text
    assert re.search(r"^- killed, killed: .*\b7 of 100$", text, re.M)
    command = "d2timm sweep backbone=resnet18d train.seed=0 'x=a b'"
    assert text.endswith(f"backbone=resnet18d: bbox/AP 11.00 ± 1.41.\n\n```sh\n{command}\n```\n")


def test_csv(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    write_tables(tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        first, second, *others = csv.DictReader(file)
    assert list(first) == [
        *("rank", "name", "repeats", "status", "reason", "metric", "score_percent", "score_spread_percent"),
        *("score_low_percent", "score_high_percent"),
        *("model_name", "parameters", "multiply_adds", "train_seconds", "images_per_second"),
        *("milliseconds_per_image", "peak_memory_bytes", "iterations", "max_iterations", "command"),
        *("bbox/AP_percent", "bbox/AP50_percent", "bbox/APs_percent"),
    ]
    assert first["rank"] == second["rank"] == "1"
    assert first["repeats"] == "2"
    assert float(first["bbox/AP_percent"]) == float(first["score_percent"]) == 11
    assert float(first["milliseconds_per_image"]) == 125
    assert first["peak_memory_bytes"] == str(2**40)
    assert first["bbox/APs_percent"] == ""
    assert second["reason"] == "AP has not risen | for 3 evaluations"
    assert [row["status"] for row in others] == ["killed", "failed", "unreadable"]


def test_json(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    write_tables(tmp_path)
    tree = strict_json(tmp_path / "leaderboard.json")
    assert tree["best"]["name"] == "backbone=resnet18d"
    assert tree["best"]["command"][-2:] == ["train.seed=0", "x=a b"]
    first = tree["entries"][0]
    assert [run["record"]["metrics"]["bbox"]["AP"] for run in first["runs"]] == [10.0, 12.0]
    assert first["metrics"]["bbox"] == {"AP": 11.0, "AP50": 16.5, "APs": None}
    assert tree["entries"][-1]["runs"][0]["reason"].startswith("result.json: Expecting")


def test_tables_can_be_written_to_another_folder(tmp_path: Path) -> None:
    put_sweep(tmp_path / "sweep")
    (tmp_path / "out").mkdir()
    write_tables(tmp_path / "sweep", tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(FILES)
    assert not (tmp_path / "sweep" / "leaderboard.md").exists()


def test_summary_without_a_score(tmp_path: Path) -> None:
    put(tmp_path / "a", status="running")
    assert "No run has a score yet." in summary(make_entries(read_runs(tmp_path)))


def test_summary_names_the_status_of_a_best_run_that_is_not_done(tmp_path: Path) -> None:
    put(tmp_path / "a", 5, iterations=50)
    text = summary(make_entries(read_runs(tmp_path)))
    assert "paused: 50 of 100 iterations." in text
    assert "no command was recorded" in text


def test_different_metrics_are_noted_and_shown_with_each_score(tmp_path: Path) -> None:
    put(tmp_path / "a", 5)
    put(tmp_path / "b", 5, metric="bbox/AP50")
    write_tables(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "different metrics" in text
    assert "bbox/AP, bbox/AP50." in text
    header, first, second = table_rows(text)
    assert first[header.index("score")] == "7.50 (bbox/AP50)"
    assert second[header.index("score")] == "5.00 (bbox/AP)"


def test_masks_have_columns_when_any_run_has_them(tmp_path: Path) -> None:
    put(tmp_path / "boxes", 5)
    metrics = {"bbox": {"AP": 6.0}, "segm": {"AP": 4.0, "APs": None, "APl": 3.0}}
    put(tmp_path / "masks", metrics=metrics)
    write_tables(tmp_path)
    header, masks, boxes = table_rows((tmp_path / "leaderboard.md").read_text())
    assert header[2:6] == ["bbox/AP", "box AP50", "mask AP", "mask APl"]
    assert masks[2:6] == ["6.00", "", "4.00", "3.00"]
    assert boxes[2:6] == ["5.00", "7.50", "", ""]


def test_code_fence_is_longer_than_backticks_in_the_command(tmp_path: Path) -> None:
    put(tmp_path / "a", 5, command=["train", "x=```"])
    write_tables(tmp_path)
    assert "````sh\ntrain 'x=```'\n````" in (tmp_path / "leaderboard.md").read_text()


def test_summary_fits_the_terminal_with_distinct_names(tmp_path: Path) -> None:
    for neck in ("fpn", "bifpn"):
        put(
            tmp_path / f"backbone=resnet50.a1_in1k,neck={neck},long={'x' * 90}",
            5,
            command=["train", neck],
            parameters=10**9,
        )
    put(tmp_path / f"backbone={'y' * 150}", status="failed", error="z" * 300)
    table = summary(make_entries(read_runs(tmp_path))).split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 120
    assert len({line[8:50] for line in table.splitlines()[2:]}) == 3


def test_tables_can_be_written_while_runs_appear(tmp_path: Path) -> None:
    put(tmp_path / "first", 1)

    def add() -> None:
        for number in range(30):
            put(tmp_path / f"job{number}", number)

    thread = threading.Thread(target=add)
    thread.start()
    while thread.is_alive():
        entries = write_tables(tmp_path)
        assert all(entry.status == "done" for entry in entries)
        strict_json(tmp_path / "leaderboard.json")
    thread.join()
    assert len(write_tables(tmp_path)) == 31
    assert not list(tmp_path.glob(".*"))


def test_records_of_strangers_cannot_control_a_terminal_or_a_page(tmp_path: Path) -> None:
    evil = "a\x1b]0;title\x07\x9b2J\n<script>alert(1)</script>`|"
    folder = put(tmp_path / "run", 3.0, command=["d2timm", evil], model_name=evil, stopped=evil, error=evil)
    record = json.loads((folder / "result.json").read_text())
    record |= {"metric": evil, "metrics": {evil: {evil: 1.0}, "bbox": {"AP": 3.0}}}
    (folder / "result.json").write_text(json.dumps(record))
    put(tmp_path / "other", 4.0, command=["d2timm", evil])
    entries = write_tables(tmp_path)
    texts = [(tmp_path / file).read_text() for file in FILES]
    for text in [*texts, summary(entries)]:
        assert text.replace("\n", "").isprintable()
    outside_code = re.sub(r"(?ms)^(`{3,})sh$.*?^\1$", "", texts[0])
    assert not re.search(r"(?<!\\)<script", outside_code)
