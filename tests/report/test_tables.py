"""Leaderboards tell the same in Markdown, CSV, JSON and the terminal."""

from __future__ import annotations

import csv
import json
import re
import threading
from pathlib import Path
from typing import Any

from helpers.run_folders import put

from d2timm.report.entries import leaderboard
from d2timm.report.leaderboard import write_leaderboard
from d2timm.report.tables import short_names, shortened, summary, write
from d2timm.runs.status import read_runs

FILES = ("leaderboard.md", "leaderboard.csv", "leaderboard.json", "pareto.png")


def strict_json(file: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return dict(json.loads(file.read_text(), parse_constant=refuse))


def cells(markdown: str) -> list[list[str]]:
    """Rows of a table, header first, as GitHub splits them."""
    rows = [line for line in markdown.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def put_sweep(sweep: Path) -> None:
    """A run of each kind, repeats and a tie."""
    for seed, score in enumerate((10.0, 12.0)):
        put(
            sweep / f"backbone=resnet18d,seed={seed}",
            score,
            command=["python", "train.py", "backbone=resnet18d", f"train.seed={seed}", "x=a b"],
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
    write(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    header, *rows = cells(text)
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
    assert "are ties" in text
    assert "multiply-adds" in text
    assert "- killed, killed: cut off at iteration 7 of 100\n" in text
    command = "python train.py backbone=resnet18d train.seed=0 'x=a b'"
    assert text.endswith(f"backbone=resnet18d: bbox/AP 11.00 ± 1.41.\n\n```sh\n{command}\n```\n")


def test_csv(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    write(tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        first, second, *others = csv.DictReader(file)
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
    write(tmp_path)
    told = strict_json(tmp_path / "leaderboard.json")
    assert told["best"]["name"] == "backbone=resnet18d"
    assert told["best"]["command"][-2:] == ["train.seed=0", "x=a b"]
    first = told["entries"][0]
    assert [run["record"]["metrics"]["bbox"]["AP"] for run in first["runs"]] == [10.0, 12.0]
    assert first["metrics"]["bbox"] == {"AP": 11.0, "AP50": 16.5, "APs": None}
    assert told["entries"][-1]["runs"][0]["reason"].startswith("result.json: Expecting")


def test_same_folders_give_the_same_bytes(tmp_path: Path) -> None:
    put_sweep(tmp_path / "sweep")
    write_leaderboard(tmp_path / "sweep")
    first = {name: (tmp_path / "sweep" / name).read_bytes() for name in FILES}
    write_leaderboard(tmp_path / "sweep")
    assert {name: (tmp_path / "sweep" / name).read_bytes() for name in FILES} == first


def test_another_folder_takes_the_files(tmp_path: Path) -> None:
    put_sweep(tmp_path / "sweep")
    (tmp_path / "out").mkdir()
    write(tmp_path / "sweep", tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(FILES[:3])
    assert not (tmp_path / "sweep" / "leaderboard.md").exists()


def test_nothing_has_a_score_yet(tmp_path: Path) -> None:
    put(tmp_path / "a", status="running")
    (tmp_path / "pareto.png").write_text("of an earlier sweep")
    write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "No run has a score yet." in text
    assert "pareto.png" not in text
    assert not (tmp_path / "pareto.png").exists()
    assert strict_json(tmp_path / "leaderboard.json")["best"] is None
    assert "No run has a score yet." in summary(leaderboard(read_runs(tmp_path)))


def test_best_that_is_not_done_says_so(tmp_path: Path) -> None:
    put(tmp_path / "a", 5, iterations=50)
    told = summary(leaderboard(read_runs(tmp_path)))
    assert "No run with a score is done; this one is paused: 50 of 100 iterations." in told
    assert "no command was recorded" in told


def test_metrics_that_do_not_compare_are_told(tmp_path: Path) -> None:
    put(tmp_path / "a", 5)
    put(tmp_path / "b", 5, metric="bbox/AP50")
    write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "different metrics, which do not compare: bbox/AP, bbox/AP50." in text
    header, first, second = cells(text)
    assert first[header.index("score")] == "7.50 (bbox/AP50)"
    assert second[header.index("score")] == "5.00 (bbox/AP)"


def test_masks_have_columns_when_any_run_has_them(tmp_path: Path) -> None:
    put(tmp_path / "boxes", 5)
    metrics = {"bbox": {"AP": 6.0}, "segm": {"AP": 4.0, "APs": None, "APl": 3.0}}
    put(tmp_path / "masks", metrics=metrics)
    write(tmp_path)
    header, masks, boxes = cells((tmp_path / "leaderboard.md").read_text())
    assert header[2:6] == ["bbox/AP", "box AP50", "mask AP", "mask APl"]
    assert masks[2:6] == ["6.00", "", "4.00", "3.00"]
    assert boxes[2:6] == ["5.00", "7.50", "", ""]


def test_fence_is_longer_than_what_is_in_it(tmp_path: Path) -> None:
    put(tmp_path / "a", 5, command=["train", "x=```"])
    write(tmp_path)
    assert "````sh\ntrain 'x=```'\n````" in (tmp_path / "leaderboard.md").read_text()


def test_summary_fits_the_terminal_with_names_that_stay_apart(tmp_path: Path) -> None:
    for neck in ("fpn", "bifpn"):
        put(
            tmp_path / f"backbone=resnet50.a1_in1k,neck={neck},long={'x' * 90}",
            5,
            command=["train", neck],
            parameters=10**9,
        )
    put(tmp_path / f"backbone={'y' * 150}", status="failed", error="z" * 300)
    told = summary(leaderboard(read_runs(tmp_path))).split("\n\n")[0]
    assert max(map(len, told.splitlines())) <= 120
    assert len({line[8:50] for line in told.splitlines()[2:]}) == 3


def test_runs_that_appear_meanwhile_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path / "first", 1)

    def add() -> None:
        for number in range(30):
            put(tmp_path / f"job{number}", number)

    thread = threading.Thread(target=add)
    thread.start()
    while thread.is_alive():
        written = write(tmp_path)
        assert all(entry.status == "done" for entry in written)
        strict_json(tmp_path / "leaderboard.json")
    thread.join()
    assert len(write(tmp_path)) == 31
    assert not list(tmp_path.glob(".*"))


def test_short_names() -> None:
    assert short_names(["backbone=resnet18d,neck=fpn", "backbone=vit,neck=fpn"]) == ["resnet18d", "vit"]
    assert short_names(["backbone=vit,neck=fpn"]) == ["vit fpn"]
    assert short_names(["lr=1,wd=2", "lr=2,wd=1"]) == ["1 2", "2 1"]
    assert short_names(["a=1", "b=1", "0"]) == ["a=1", "b=1", "0"]
    assert short_names(["a=1", "a=1,b=2"]) == ["1", "2"]


def test_shortened_keeps_both_ends() -> None:
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefgh", 5) == "ab…gh"
    assert shortened("abcdefgh", -5) == "a…h"
