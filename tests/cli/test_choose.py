"""``d2timm choose``: its mistakes, and a real choice that is killed once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2timm.cli import main
from d2timm.runs.choice import FILE, Choice

CANDIDATES = "test_resnet=random,test_efficientnet=random"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--by 22:00 or --hours 8"),
        (["--hours", "8", "--by", "22:00"], "not both"),
        (["--hours", "0"], "--hours 0"),
        (["--hours", "1", "--candidates", "resnet18"], "at least two"),
        (["--hours", "1", "--candidates", "resnet19,resnet18"], "resnet19"),
        (["--hours", "1", "--licence", "mine"], "--licence mine"),
        (["--hours", "1", "--jobs", "0"], "--jobs 0"),
        (["--hours", "1", "--resume"], "has no choice"),
        (["--hours", "1", "train.max_iter=5"], "train.max_iter"),
        (["--hours", "1", "data.root=absent"], "absent"),
        (["--hours", "1", "data.name=shapes"], "shapes"),
    ],
)
def test_mistakes_are_errors_of_one_line(
    arguments: list[str],
    named: str,
    small_coco: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = [] if any("data." in text for text in arguments) else small_coco.overrides
    output = tmp_path / "choice"
    assert main(["choose", *data, *arguments, "--output", str(output)]) == 2
    error = capsys.readouterr().err.strip()
    assert named in error
    assert "\n" not in error
    assert not output.exists()


def start(folder: Path, tiny: list[str]) -> subprocess.Popen[str]:
    flags = ["--hours", "0.04", "--candidates", CANDIDATES, "--output", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "d2timm", "choose", *flags, *tiny],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.sampled("choices")
def test_a_choice_that_was_killed_ends_in_time(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "choice"
    taken = ("model.backbone.bottom_up.", "train.output_dir=", "data.val_")
    overrides = tiny_overrides("faster_rcnn_timm.py", folder)
    tiny = [text for text in overrides if not text.startswith(taken)]
    killed = start(folder, tiny)
    while not (folder / "probes" / "test_resnet" / "result.json").is_file():
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    ended = start(folder, tiny)
    output, _ = ended.communicate()
    choice = Choice.read(folder)
    assert choice is not None
    assert choice.verdict is not None
    assert choice.ended is not None
    assert choice.ended <= choice.deadline + 0.03 * 144, output
    assert ended.returncode == 0, output
    assert choice.verdict.sentence in output
    assert (folder / choice.verdict.folder / "result.json").is_file()
    assert (folder / FILE).is_file()
