"""``d2timm install-detectron2``, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import commands

from d2timm.cli import install_detectron2, main


@pytest.mark.parametrize("script", [False, True], ids=["command", "script"])
def test_installed_detectron2_is_left_alone(script: bool) -> None:
    done = commands.run_script("install_detectron2") if script else commands.run("install-detectron2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do" in done.stdout


def test_wheel_is_hash_checked_and_goes_to_site_packages() -> None:
    fetch, remove, install = install_detectron2.pip_commands(False, Path("work"), Path("site"))
    requirements = str(Path("work/requirements.txt"))
    for command in (fetch, install):
        assert command[0] == sys.executable
        assert "--require-hashes" in command
        assert command[command.index("-r") + 1] == requirements
        assert "--python-version=3.10" in command
    assert remove[-2:] == ["detectron2", "sal-detectron2"]
    assert install[install.index("--target") + 1] == "site"
    assert "--upgrade" in install
    assert "--no-index" in install  # only the downloaded and checked wheel is installed


def test_source_is_a_full_commit() -> None:
    build, _, install = install_detectron2.pip_commands(True, Path("work"), Path("site"))
    assert "--no-build-isolation" in build
    assert build[-1].startswith("git+https://github.com/facebookresearch/detectron2@")
    assert len(build[-1].rpartition("@")[2]) == 40
    assert "--target" not in install  # compiled code works with this Python only


@pytest.mark.parametrize("failing", ["pip", "import", "folder"])
def test_failure_is_one_message_with_its_reason(
    failing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = "raise SystemExit('noise\\nERROR: no such wheel')" if failing == "pip" else ""
    site_packages = tmp_path / "missing" if failing == "folder" else tmp_path
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(site_packages))
    monkeypatch.setattr(install_detectron2, "pip_commands", lambda *_: [[sys.executable, "-c", code]])
    monkeypatch.setattr(install_detectron2, "import_error", lambda: "no module named detectron2")

    assert main(["install-detectron2"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: cannot install sal-detectron2==0.7.2")
    reason = {
        "pip": "no such wheel",
        "import": "no module named detectron2",
        "folder": "not writable",
    }[failing]
    assert reason in err
    assert "noise" not in err
