"""Install detectron2 into this Python environment.

    d2timm install-detectron2
    d2timm install-detectron2 --from-source

detectron2 has no release on the package index. By default the command installs sal-detectron2 from there:
detectron2's main branch of April 2024 without the compiled operators. Its Python code works with any version
of Python, although the wheel is tagged for 3.10. --from-source builds the official repository instead, with
the compiled operators.

If detectron2 can be imported already, the command does nothing.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

__all__ = ["add_arguments", "run"]

WHEEL = "sal-detectron2==0.7.2"
WHEEL_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
SOURCE = "https://github.com/facebookresearch/detectron2"
SOURCE_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"  # main of 2026-06-06
CHECK = "import detectron2, detectron2.modeling, detectron2.engine"

Command = list[str]


class InstallError(Exception):
    """The installation failed; the message gives the reason."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_flag = functools.partial(parser.add_argument, action="store_true")
    add_flag("--from-source", help="build the official repository (needs git, a C++ compiler and a network)")
    add_flag("--force", help="install even if detectron2 can be imported")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if the installation fails."""
    if not options.force and import_error() is None:
        print("detectron2 is installed; nothing to do (--force installs it again).")
        return 0
    version = f"detectron2 {SOURCE_COMMIT[:12]} from source" if options.from_source else WHEEL
    try:
        install(options.from_source)
    except InstallError as error:
        print(f"error: cannot install {version}: {error}", file=sys.stderr)
        return 1
    print(f"Installed {version} into {sysconfig.get_path('purelib')}.")
    return 0


def install(from_source: bool) -> None:
    """Install detectron2 into the site-packages of this interpreter.

    Raises:
        InstallError: the folder is not writable, pip failed, or detectron2 still cannot be imported.
    """
    site_packages = Path(sysconfig.get_path("purelib"))
    if not os.access(site_packages, os.W_OK):
        raise InstallError(f"{site_packages} is not writable; use a virtual environment.")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if not from_source:
            (work / "requirements.txt").write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        for command in pip_commands(from_source, work, site_packages):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise InstallError(summarize_output(done.stderr))
    if reason := import_error():
        raise InstallError(f"detectron2 was installed but cannot be imported: {reason}")


def pip_commands(from_source: bool, work: Path, site_packages: Path) -> list[Command]:
    """The pip commands that install detectron2: fetch or build it, remove an earlier one, install.

    Fetching comes first, so that a failure leaves an earlier installation as it was. Both distributions are
    removed, because both own the folder ``detectron2``.

    Args:
        from_source: build the official repository instead of downloading the wheel.
        work: the folder for the wheel; it holds ``requirements.txt`` unless ``from_source``.
        site_packages: the folder to install the wheel into.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    remove = [*pip, "uninstall", "--yes", "detectron2", "sal-detectron2"]
    local = ["--no-deps", "--no-index", "--find-links", str(work)]
    if from_source:
        # Without isolation, because detectron2's build imports the torch that it is compiled against
        build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(work)]
        return [
            [*build, f"git+{SOURCE}@{SOURCE_COMMIT}"],
            remove,
            [*pip, "install", *local, "detectron2"],
        ]
    # pip accepts a wheel that is tagged for another Python only with these options and an explicit target
    tags = ["--python-version=3.10", "--implementation=cp", "--abi=none", "--platform=any"]
    tags += ["--only-binary=:all:"]
    pinned = ["--require-hashes", "-r", str(work / "requirements.txt")]
    # Without --upgrade, pip keeps a folder that an interrupted installation has left, and exits with 0
    target = ["--target", str(site_packages), "--upgrade"]
    return [
        [*pip, "download", "--no-deps", "--dest", str(work), *tags, *pinned],
        remove,
        [*pip, "install", *local, *target, *tags, *pinned],
    ]


def import_error() -> str | None:
    """The reason why detectron2 cannot be imported in a new interpreter; None if it can."""
    # In the folder of the interpreter, so that a clone in the working directory is not imported
    check = [sys.executable, "-c", CHECK]
    done = subprocess.run(check, capture_output=True, text=True, cwd=Path(sys.executable).parent)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def summarize_output(output: str) -> str:
    """The distinct lines of pip's output that describe errors, at most five."""
    lines = list(dict.fromkeys(line.strip() for line in output.splitlines() if line.strip()))
    errors = [line for line in lines if re.search(r"(error|fatal): ", line, re.IGNORECASE)]
    return "\n  ".join(["pip failed", *(errors or lines)[-5:]])
