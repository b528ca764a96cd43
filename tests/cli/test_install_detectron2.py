"""scripts/install_detectron2.py, without network."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers import commands

SCRIPT = Path(__file__).parents[2] / "scripts" / "install_detectron2.py"


@pytest.fixture
def script() -> ModuleType:
    """The script as a fresh module."""
    return commands.load("install_detectron2")


run = functools.partial(commands.run, "install_detectron2")


def test_does_nothing_where_detectron2_imports() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--from-source" in done.stdout


def test_wheel_is_hash_checked_and_goes_to_site_packages(script: ModuleType) -> None:
    fetch, remove, install = script.pip_commands(False, Path("work"), Path("site"))
    requirements = str(Path("work/requirements.txt"))
    for command in (fetch, install):
        assert command[0] == sys.executable
        assert "--require-hashes" in command
        assert command[command.index("-r") + 1] == requirements
        assert "--python-version=3.10" in command
    assert remove[-2:] == ["detectron2", "sal-detectron2"]
    assert install[install.index("--target") + 1] == "site"
    assert "--upgrade" in install
    assert "--no-index" in install  # what is installed is what was fetched and checked


def test_source_is_a_full_commit(script: ModuleType) -> None:
    fetch, _, install = script.pip_commands(True, Path("work"), Path("site"))
    assert "--no-build-isolation" in fetch
    assert fetch[-1].startswith("git+https://github.com/facebookresearch/detectron2@")
    assert len(fetch[-1].rpartition("@")[2]) == 40
    assert "--target" not in install  # compiled code is for this Python only


@pytest.mark.parametrize("failing", ["pip", "import", "folder"])
def test_failure_is_one_message(
    failing: str,
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    code = "raise SystemExit('noise\\nERROR: no such wheel')" if failing == "pip" else ""
    site_packages = tmp_path / "missing" if failing == "folder" else tmp_path
    monkeypatch.setattr(script.sysconfig, "get_path", lambda _: str(site_packages))
    monkeypatch.setattr(script, "pip_commands", lambda *_: [[sys.executable, "-c", code]])
    monkeypatch.setattr(script, "import_error", lambda: "no module named detectron2")

    assert script.main([]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: cannot install sal-detectron2==0.7.2")
    reason = {
        "pip": "no such wheel",
        "import": "no module named detectron2",
        "folder": "not writable",
    }[failing]
    assert reason in said.err
    assert "noise" not in said.err
