"""What the package promises to those who import or install it."""

from __future__ import annotations

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
    tomllib = pytest.importorskip("tomllib", reason="it came with Python 3.11")
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text()))


def test_version_is_that_of_the_distribution(pyproject: dict[str, Any]) -> None:
    assert d2timm.__version__ == version("d2timm") == pyproject["project"]["version"]


def test_public_names_are_there() -> None:
    from d2timm.backbone.timm_backbone import TimmBackbone
    from d2timm.errors import ConfigError

    assert d2timm.TimmBackbone is TimmBackbone
    assert d2timm.ConfigError is ConfigError
    assert d2timm.get_config is config.get_config
    assert all(hasattr(d2timm, name) for name in d2timm.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'd2timm' has no attribute 'TimBackbone'"):
        d2timm.TimBackbone  # noqa: B018


def test_import_is_light() -> None:
    code = "import sys, d2timm, d2timm.errors; print({'torch', 'timm', 'detectron2'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_wheel_has_the_configs_inside_the_package(pyproject: dict[str, Any]) -> None:
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["only-include"]) == {"d2timm", "conf", "hydra_plugins", "lazy_configs"}
    assert wheel["sources"] == {name: f"d2timm/{name}" for name in ("conf", "lazy_configs")}
    assert files.resource_folder("lazy_configs") == ROOT / "lazy_configs"


def test_configs_are_found_where_a_wheel_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
