"""The classes and functions that a config may name, and the objects that are built from nodes."""

from __future__ import annotations

import dataclasses
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import ListConfig, OmegaConf

from d2timm import ConfigError
from d2timm.utils.targets import TRUST, instantiate, resolve_target, trust, trusted

#: Names that would open, load, import, spawn or evaluate something
MALICIOUS = [
    "os.system",
    "posix.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "builtins.getattr",
    "builtins.compile",
    "pickle.loads",
    "importlib.import_module",
    "runpy.run_path",
    "shutil.rmtree",
    "pathlib.Path.unlink",
    "functools.partial",
    "operator.methodcaller",
    "logging.os.system",
    "torch.os.system",
    "torch.nn.functional.os.system",
    "torch.nn.modules.module.functools.partial",
    "torch.optim.lr_scheduler.partial",
    "torch.load",
    "torch.hub.load",
    "torch.hub.download_url_to_file",
    "torch.utils.cpp_extension.load",
    "torch.jit.load",
    "timm.create_model",
    "timm.models.load_checkpoint",
    "timm.layers.config.os.system",
    "timm.optim._optim_factory.import_module",
    "timm.optim.create_optimizer_v2",
    "fvcore.common.checkpoint.Checkpointer",
    "detectron2.config.LazyConfig.load",
    "detectron2.config.instantiate",
    "detectron2.data.get_detection_dataset_dicts",
    "detectron2.data.build.pickle.load",
    "detectron2.checkpoint.DetectionCheckpointer",
    "detectron2.modeling.mmdet_wrapper.MMDetDetector",
    "detectron2.modeling.backbone.fpn.math.sqrt",
    "detectron2.modeling.build_model",
    "detectron2.model_zoo.get",
    "detectron2.layers.wrappers.torch.load",
    "d2timm.load",
    "d2timm.engine.start",
    "d2timm.engine.train",
    "d2timm.engine.process.run",
    "d2timm.data.catalog.os.system",
    "d2timm.utils.files.shutil.rmtree",
    "d2timm.utils.targets.trust",
    "d2timm.config.load",
    "d2timm.cli.main",
    "d2timm.__main__.main",
    "numpy.load",
    "numpy.fromfile",
    "yaml.unsafe_load",
    "hydra.utils.instantiate",
    "pydoc.locate",
    "antigravity.geohash",
    "",
    ".",
    "os",
    "torch.nn",
    "torch.nn.Module.load_state_dict",
    "torch.nn.Conv2d.__init__.__globals__",
    "os:system",
    "torch.nn:Module.share_memory",
]


@dataclasses.dataclass
class Pair:
    """A dataclass that Python code may put into a config."""

    left: int = 1
    right: Any = None


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user trusts no package."""
    monkeypatch.setenv(TRUST, "")


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package whose import leaves a file behind."""
    folder = tmp_path / "own_parts"
    folder.mkdir()
    text = (
        f"import os\nfrom pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
        "class Head:\n    def __init__(self, size=1):\n        self.size = size\n"
    )
    (folder / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, folder.name, raising=False)
    return folder.name


@pytest.mark.parametrize("name", MALICIOUS)
def test_everything_else_is_refused(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        instantiate({"_target_": name})
    assert "\n" not in str(caught.value)
    assert "antigravity" not in set(sys.modules) - before, "nothing is imported"
    with pytest.raises(ConfigError):
        instantiate(OmegaConf.create({"a": [{"_target_": "builtins.dict", "b": {"_target_": name}}]}).a)


@pytest.mark.parametrize(
    "name",
    [
        "d2timm.backbone.TimmBackbone",
        "d2timm.modeling.levels.last",
        "detectron2.modeling.FPN",
        "detectron2.layers.ShapeSpec",
        "detectron2.solver.get_default_optimizer_params",
        "detectron2.data.DatasetMapper",
        "fvcore.common.param_scheduler.CosineParamScheduler",
        "timm.layers.get_norm_layer",
        "torch.nn.LayerNorm",
        "torch.nn.modules.normalization.LayerNorm",
        "torch.optim.AdamW",
    ],
)
def test_parts_of_detectors_are_found(name: str) -> None:
    assert resolve_target(name).__name__ == name.rpartition(".")[2]


def test_names_that_do_not_exist_are_errors_with_their_place() -> None:
    cfg = OmegaConf.create({"model": {"neck": {"_target_": "torch.nn.NoSuchModule"}}})
    with pytest.raises(ConfigError, match=r"^model\.neck\._target_=torch\.nn\.NoSuchModule: "):
        instantiate(cfg.model.neck)


def test_own_package_is_imported_only_if_it_is_trusted(own_package: str, tmp_path: Path) -> None:
    node = {"_target_": f"{own_package}.Head", "size": 3}
    with pytest.raises(ConfigError, match=f"--trust {own_package} or {TRUST}={own_package}"):
        instantiate(node)
    assert not (tmp_path / "imported").exists()
    trust("another", own_package)
    assert instantiate(node).size == 3
    assert trusted() == ["another", own_package]
    for name in (f"{own_package}.os.system", f"{own_package}.Path"):
        with pytest.raises(ConfigError):
            resolve_target(name)


def test_single_name_can_be_trusted() -> None:
    trust("torch.utils.data.sampler.SequentialSampler")
    assert instantiate({"_target_": "torch.utils.data.sampler.SequentialSampler", "data_source": [1]})
    with pytest.raises(ConfigError):
        resolve_target("torch.utils.data.sampler.RandomSampler")


def test_nested_nodes_are_built_first() -> None:
    cfg = OmegaConf.create(
        {
            "size": 4,
            "layer": {"_target_": "torch.nn.Linear", "in_features": "${size}", "out_features": 2},
            "both": {"_target_": "builtins.dict", "parts": ["${layer}", {"_target_": "torch.nn.ReLU"}]},
        }
    )
    built = instantiate(cfg.both)["parts"]
    assert [type(part) for part in built] == [torch.nn.Linear, torch.nn.ReLU]
    assert built[0].in_features == 4
    assert instantiate(cfg.size) == 4
    assert instantiate([1, {"a": 2}]) == [1, {"a": 2}]


def test_classes_and_dataclasses_of_python_code() -> None:
    cfg = OmegaConf.create({"_target_": Fraction, "numerator": 2}, flags={"allow_objects": True})
    assert instantiate(cfg) == Fraction(2)
    assert instantiate(OmegaConf.structured(Pair(3))) == Pair(3)


@pytest.mark.parametrize("target", [3, None, ["torch.nn.ReLU"], {"_target_": "timm.layers.get_norm_layer"}])
def test_target_that_is_no_name(target: Any) -> None:
    for node in ({"_target_": target}, OmegaConf.create({"_target_": target})):
        with pytest.raises(ConfigError, match="_target_="):
            instantiate(node)


def test_texts_are_evaluated_once() -> None:
    cfg = OmegaConf.create({"a": "$", "b": "{oc.env:HOME}", "texts": ["${a}${b}"]})
    (text,) = instantiate(cfg.texts)
    assert text == "${oc.env:HOME}"
    assert not isinstance(instantiate(cfg.texts), ListConfig)
