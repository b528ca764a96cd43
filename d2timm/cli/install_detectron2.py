"""Install detectron2 into this Python environment.

    d2timm install-detectron2
    d2timm install-detectron2 --from-source

detectron2 has no release on the package index. `sal-detectron2` there is its main branch of
April 2024 without the compiled operators: Python code that runs on any version, although the
wheel is tagged for 3.10. That is the default. `--from-source` builds the official repository
instead, compiled operators included.

A detectron2 that already imports is left alone, so running this again costs only the check.
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
    """An expected failure, told in one message."""


def commands(from_source: bool, work: Path, site_packages: Path) -> list[Command]:
    """The pip commands that install detectron2, in order: fetch, remove what is there, install.

    Fetching (or building) comes first, so that its failure leaves what is there as it was. Both
    distributions are removed, because both own the folder `detectron2`.

    Args:
        from_source: build the official repository instead of taking the wheel.
        work: where the fetched wheel goes; holds `requirements.txt` unless `from_source`.
        site_packages: where the wheel is installed.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    remove = [*pip, "uninstall", "--yes", "detectron2", "sal-detectron2"]
    found = ["--no-deps", "--no-index", "--find-links", str(work)]
    if from_source:
        # Without isolation: detectron2's build imports the torch that it is compiled against.
        fetch = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(work)]
        return [
            [*fetch, f"git+{SOURCE}@{SOURCE_COMMIT}"],
            remove,
            [*pip, "install", *found, "detectron2"],
        ]

    # pip takes a wheel tagged for another Python only together with an explicit target folder.
    tags = ["--python-version=3.10", "--implementation=cp", "--abi=none", "--platform=any"]
    tags += ["--only-binary=:all:"]  # pip asks for this one beside the others
    pinned = ["--require-hashes", "-r", str(work / "requirements.txt")]
    # Without --upgrade pip keeps, with exit code 0, a folder that an interrupted run has left.
    target = ["--target", str(site_packages), "--upgrade"]
    return [
        [*pip, "download", "--no-deps", "--dest", str(work), *tags, *pinned],
        remove,
        [*pip, "install", *found, *target, *tags, *pinned],
    ]


def import_error() -> str | None:
    """Why detectron2 does not import in a fresh interpreter, or None if it does."""
    # Run beside the interpreter, so that a clone in the working directory does not answer for it.
    check = [sys.executable, "-c", CHECK]
    done = subprocess.run(check, capture_output=True, text=True, cwd=Path(sys.executable).parent)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def reasons(said: str) -> str:
    """The lines of pip's output that tell what went wrong, at most five, one below the other."""
    lines = list(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip()))
    errors = [line for line in lines if re.search(r"(error|fatal): ", line, re.IGNORECASE)]
    return "\n  ".join(["pip failed", *(errors or lines)[-5:]])


def install(from_source: bool) -> None:
    """Install detectron2 into this interpreter's site-packages; raises `InstallError`."""
    site_packages = Path(sysconfig.get_path("purelib"))
    if not os.access(site_packages, os.W_OK):
        raise InstallError(f"{site_packages} is not writable; use a virtual environment.")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if not from_source:
            (work / "requirements.txt").write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        for command in commands(from_source, work, site_packages):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise InstallError(reasons(done.stderr))
    if reason := import_error():
        raise InstallError(f"detectron2 was installed but does not import: {reason}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_flag = functools.partial(parser.add_argument, action="store_true")
    add_flag("--from-source", help="build the official repository (git, a C++ compiler, network)")
    add_flag("--force", help="install even where detectron2 imports already")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if not options.force and import_error() is None:
        print("detectron2 imports already; nothing to do (--force installs it again).")
        return 0
    what = f"detectron2 {SOURCE_COMMIT[:12]} from source" if options.from_source else WHEEL
    try:
        install(options.from_source)
    except InstallError as error:
        print(f"error: cannot install {what}: {error}", file=sys.stderr)
        return 1
    print(f"Installed {what} into {sysconfig.get_path('purelib')}.")
    return 0
