"""The installed package: version, public names, configs, and modules that do not need torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import d2timm
from d2timm.config import lazy as config
from d2timm.utils import files

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="new in Python 3.11")
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text()))


def test_version_of_the_distribution(pyproject: dict[str, Any]) -> None:
    assert d2timm.__version__ == version("d2timm") == pyproject["project"]["version"]


def test_public_names_exist() -> None:
    from d2timm.backbone.timm_backbone import TimmBackbone
    from d2timm.errors import ConfigError

    assert d2timm.TimmBackbone is TimmBackbone
    assert d2timm.ConfigError is ConfigError
    assert d2timm.get_config is config.get_config
    assert all(hasattr(d2timm, name) for name in d2timm.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'd2timm' has no attribute 'TimBackbone'"):
        d2timm.TimBackbone  # noqa: B018


#: Modules that front-ends import before torch, or on machines without it
LIGHT = [
    "d2timm",
    "d2timm.errors",
    "d2timm.cli",
    *(f"d2timm.cli.{file.stem}" for file in sorted((ROOT / "d2timm" / "cli").glob("[!_]*.py"))),
    "d2timm.modeling.levels",
    "d2timm.modeling.traits",
    "d2timm.config.compatibility",
    "d2timm.config.former_names",
    "d2timm.config.groups",
    "d2timm.config.lazy",
    "d2timm.data.paths",
    "d2timm.engine.run",
    "d2timm.report.entries",
    "d2timm.report.leaderboard",
    "d2timm.report.page.serve",
    "d2timm.report.page.write",
    "d2timm.report.summaries",
    "d2timm.report.tables",
    "d2timm.runs.choice",
    "d2timm.runs.record",
    "d2timm.runs.samples",
    "d2timm.runs.status",
    "d2timm.sweep.hydra_app",
    "d2timm.sweep.hydra_groups",
    "d2timm.utils.checks",
    "d2timm.utils.files",
    "d2timm.utils.quiet",
    "d2timm.utils.text",
    "d2timm.utils.trees",
    "d2timm.utils.yaml_file",
]
HEAVY = ["torch", "torchvision", "timm", "detectron2"]


@pytest.fixture(scope="module")
def import_errors() -> dict[str, str]:
    """Module -> the error of its import, for modules that cannot be imported without the heavy packages."""
    program = (
        "import importlib, json, sys\n"
        "modules, heavy = (argument.split(',') for argument in sys.argv[1:])\n"
        "sys.modules.update(dict.fromkeys(heavy))\n"  # an import of None fails
        "errors = {}\n"
        "for module in modules:\n"
        "    try: importlib.import_module(module)\n"
        "    except ImportError as error: errors[module] = str(error)\n"
        "print(json.dumps(errors))"
    )
    command = [sys.executable, "-c", program, ",".join(LIGHT), ",".join(HEAVY)]
    return dict(json.loads(subprocess.check_output(command, text=True)))


@pytest.mark.parametrize("module", LIGHT)
def test_module_does_not_need_torch(module: str, import_errors: dict[str, str]) -> None:
    assert import_errors.get(module) is None


def test_blocked_packages_are_noticed() -> None:
    program = "import sys; sys.modules['torch'] = None; import d2timm.backbone.spec"
    failed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "torch" in failed.stderr.splitlines()[-1]


def test_wheel_has_the_configs_inside_the_package(pyproject: dict[str, Any]) -> None:
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["only-include"]) == {"d2timm", "conf", "hydra_plugins", "lazy_configs"}
    assert wheel["sources"] == {name: f"d2timm/{name}" for name in ("conf", "lazy_configs")}
    assert files.resource_folder("lazy_configs") == ROOT / "lazy_configs"


def test_wheel_has_the_files_of_the_page() -> None:
    page = ROOT / "d2timm" / "report" / "page"
    assert {"page.js", "style.css", "template.html"} <= {file.name for file in page.iterdir()}
    ignored = subprocess.run(
        ["git", "check-ignore", *page.iterdir()], cwd=ROOT, capture_output=True, text=True
    )
    assert [line for line in ignored.stdout.splitlines() if "__pycache__" not in line] == []


def test_configs_of_a_wheel_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "d2timm" / "lazy_configs"
    shutil.copytree(ROOT / "lazy_configs", inside)
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "d2timm")
    cfg = d2timm.get_config("mask_rcnn_timm.py")
    assert cfg.model.backbone.bottom_up.model_name == "resnet50"


def test_every_config_of_the_repository_loads() -> None:
    root = ROOT / "lazy_configs"
    names = [str(path.relative_to(root)) for path in sorted(root.rglob("*.py"))]
    assert "mask_rcnn_timm.py" in names
    for name in names:
        d2timm.get_config(name)
