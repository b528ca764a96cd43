"""The Hydra front-end: what reaches a job, and mistakes, which are one line before any job starts."""

from __future__ import annotations

import copy
import importlib.util
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from d2timm.cli import main
from d2timm.config.groups import Nodes, read_nodes
from d2timm.errors import ConfigError
from d2timm.sweep import hydra_app, overrides
from d2timm.sweep.callback import SweepFolder
from d2timm.sweep.hydra_groups import store_groups

MODEL_NAME = "model.backbone.bottom_up.model_name"


@pytest.fixture(scope="module")
def groups() -> Iterator[None]:
    """Hydra's groups, filled once; with few names of models, because Hydra copies them for each job."""
    nodes = read_nodes()
    repo = ConfigStore.instance().repo
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(repo, "backbone", {})
        store_groups(Nodes(nodes.options, ["resnet18", *timm.list_models("test_*")], nodes.traits))
        yield


@pytest.fixture
def clean_hydra(groups: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty working directory; restores what Hydra changes in a process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["d2timm"])
    monkeypatch.setattr(SweepFolder, "path", None)
    monkeypatch.setattr(overrides, "store_groups", lambda nodes: None)  # they are stored already
    repo = ConfigStore.instance().repo
    monkeypatch.setitem(repo, "backbone", copy.copy(repo["backbone"]))
    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


@pytest.fixture
def jobs(clean_hydra: None, monkeypatch: pytest.MonkeyPatch) -> list[Namespace]:
    """The arguments of every job; the jobs do nothing."""
    calls: list[Namespace] = []

    def run_job(cfg: DictConfig, options: Namespace) -> float:
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        name = cfg.model.backbone.bottom_up.model_name
        calls.append(Namespace(cfg=cfg, options=options, folder=folder, hydra=hydra, name=name))
        return 1.0

    monkeypatch.setattr(hydra_app, "run_job", run_job)
    return calls


@pytest.fixture
def leaderboards(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the sweeps whose leaderboards were printed."""
    folders: list[Path] = []
    monkeypatch.setattr(hydra_app, "print_leaderboard", lambda sweep: folders.append(sweep) or 0)
    return folders


@pytest.fixture
def call(jobs: list[Namespace], leaderboards: list[Path]) -> Callable[..., int]:
    """Call the command ``d2timm sweep`` in this process; returns the exit code."""
    return lambda *arguments: main(["sweep", *arguments])


# What reaches a job


def test_groups_values_and_flags_in_any_order(
    call: Callable[..., int], jobs: list[Namespace], tmp_path: Path
) -> None:
    arguments = ["roi_heads=box", "--resume", f"{MODEL_NAME}=test_vit", "--num-gpus", "2", "train.seed=3"]
    assert call(*arguments, "--eval-only", "train.output_dir=here") == 0
    (job,) = jobs
    assert job.name == "test_vit"
    assert job.cfg.model.roi_heads.mask_in_features is None
    assert job.cfg.train.seed == 3
    assert vars(job.options).items() >= {"resume": True, "eval_only": True, "num_gpus": 2}.items()
    assert job.folder.resolve() == tmp_path / "here"
    assert list(job.hydra.overrides.task) == [a for a in arguments if "=" in a] + ["train.output_dir=here"]


@pytest.mark.parametrize("flag", [["--eval-only"], ["--num-gpus", "2"], ["--cfg", "job"]])
def test_deletion_may_stand_between_flags(flag: list[str], call: Callable[..., int]) -> None:
    assert call("train.seed=3", "~train.tta", *flag, "neck=fpn") == 0


@pytest.mark.parametrize("name", ["Photos (1), é=#&", "2024", 'it\'s "q"', "C:\\x\\", "a[1]", "$HOME"])
def test_path_arrives_as_typed(
    name: str, call: Callable[..., int], jobs: list[Namespace], tmp_path: Path
) -> None:
    keys = ["data.root", "data.val_json", "train.init_checkpoint", "train.output_dir"]
    assert call(*(f"{key}={name}" for key in keys)) == 0
    (job,) = jobs
    assert [OmegaConf.select(job.cfg, key) for key in keys] == [name] * 4
    assert job.folder.resolve() == tmp_path / name
    assert call(*job.hydra.overrides.task) == 0, "the recorded command repeats the run"
    assert jobs[1].cfg == job.cfg


def test_name_may_have_a_tag(call: Callable[..., int], jobs: list[Namespace]) -> None:
    assert call("backbone=resnet50.a1_in1k") == 0
    assert [job.name for job in jobs] == ["resnet50.a1_in1k"]


def test_name_from_the_hub_is_a_value(call: Callable[..., int], jobs: list[Namespace]) -> None:
    assert call(f"{MODEL_NAME}='hf-hub:timm/resnet50.a1_in1k'") == 0
    assert [job.name for job in jobs] == ["hf-hub:timm/resnet50.a1_in1k"]


def test_keys_can_be_added_and_deleted(call: Callable[..., int], jobs: list[Namespace]) -> None:
    assert (
        call("+train.mine=3", "++train.seed=4", "~train.ddp.fp16_compression", "train.init_checkpoint=x") == 0
    )
    (job,) = jobs
    assert job.cfg.train.mine == 3
    assert job.cfg.train.seed == 4
    assert "fp16_compression" not in job.cfg.train.ddp


def test_mistake_in_a_job_is_one_line_and_leaves_no_folder(
    call: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(cfg: DictConfig, options: Namespace) -> None:
        raise ConfigError("train.seed: not this one")

    monkeypatch.setattr(hydra_app, "run_job", fail)
    assert call("train.output_dir=here") == 2
    assert capfd.readouterr().err == "error: train.seed: not this one\n"
    assert not list(tmp_path.iterdir())


def test_unknown_interpolation_is_one_line(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hydra_app, "run_job", lambda cfg, options: cfg.train.seed)
    assert call("train.seed=${nope}") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: Interpolation key 'nope' not found")


def test_interruption_prints_nothing(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(cfg: DictConfig, options: Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hydra_app, "run_job", interrupt)
    assert call() == 130
    assert capfd.readouterr().err == ""


def test_other_errors_are_not_hidden(call: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cfg: DictConfig, options: Namespace) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(hydra_app, "run_job", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        call()


def test_errors_of_hydra_have_a_traceback_on_request(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="--resolve flag"):
        call("--resolve")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["backbone=resnet18x"], ["backbone=resnet18x: did you mean resnet18 or resnet18d or "]),
        (["backbone=qqqqq"], ["backbone=qqqqq: no known name is similar"]),
        (["backbone=xcit_smal_12_p8_224.fb_in1k"], ["did you mean xcit_small_12_p8_224"]),
        (["backbone=hf-hub:x/y"], [f"backbone=hf-hub:x/y: write {MODEL_NAME}=hf-hub:x/y"]),
        (["-m", "backbone='local-dir:x',resnet18"], [f"write {MODEL_NAME}=local-dir:x"]),
        (["backbone="], ["backbone=: ", "the name of an option"]),
        (["backbone=null"], ["backbone=null: ", "the name of an option"]),
        (
            ["neck=fpm"],
            ["neck=fpm: did you mean fpn or pafpn or bifpn?", "neck is one of bifpn, fpn, fpn_gn, "],
        ),
        (["neck=1"], ["neck=1: ", "the name of an option"]),
        (["neck=[1]"], ["neck=[1]: ", "the name of an option"]),
        (["+sweep=small"], ["sweep=small: did you mean small_backbones?", "sweep is one of screen, small_"]),
        (
            ["hydra/launcher=joblibs"],
            ["hydra/launcher=joblibs: did you mean joblib?", "hydra/launcher is one of basic, "],
        ),
        (["train.max_itr=3"], ["'train.max_itr': train has no key 'max_itr'; did you mean max_iter?"]),
        (
            ["trian.seed=3"],
            ["'trian.seed': there is no key 'trian'; did you mean train?", "(+key=value adds"],
        ),
        (
            [f"{MODEL_NAME[:-1]}=x"],
            ["model.backbone.bottom_up has no key 'model_nam'; did you mean model_name"],
        ),
        (["~train.max_itr"], ["'train.max_itr' does not exist"]),
        (["+train.seed=3"], ["already at 'train.seed'"]),
        (["train.max_iter=ten"], ["train.max_iter=ten: train.max_iter is a number, such as "]),
        (["train.amp.enabled=ture"], ["train.amp.enabled is true or false"]),
        (["-m", "train.seed=1,two"], ["train.seed=1,two: train.seed is a number, such as 0"]),
        (["foo"], ["'foo'", "missing EQUAL"]),
        (["-m", "foo"], ["'foo'", "missing EQUAL"]),
        (["train.seed={"], ["train.seed={: '{' is not allowed", """'train.seed="{"'"""]),
        (["train seed=1"], ["an override is not key=value: train seed=1: "]),
        (["data.root=${x"], ["data.root=${x: ${ begins an interpolation"]),
        (["data.root=x\udce9"], ["'data.root=x\\udce9': not valid UTF-8"]),
        (["-m", "data.root=a,"], ["data.root=a,: ',' is not allowed here without quotes"]),
        (
            ["backbone=resnet18,resnet50"],
            ["backbone=resnet18,resnet50: several values", "add -m"],
        ),
        (["backbone=glob(test_*)"], ["several values", "add -m"]),
        (["neck=fpn,pafpn"], ["neck=fpn,pafpn: several values", "add -m"]),
        (["train.seed=1,2"], ["train.seed=1,2: several values", "add -m"]),
        (["train.seed=range(3)"], ["several values", "add -m"]),
        (["-m", "backbone=glob(nope*)"], ["backbone=glob(nope*): ", "no option that matches"]),
        (["-m", "neck=glob(nope*)"], ["neck=glob(nope*): ", "no option that matches"]),
        (["-m", "train.seed=glob(*)"], ["train.seed=glob(*): ", "no option that matches"]),
        (["-m", "train.seed=range(0)"], ["train.seed=range(0): ", "no values"]),
        (["-m", "train.seed=range(0,1,0)"], ["train.seed=range(0,1,0): ", "no values"]),
        (["+sweep=screen", "backbones=glob(nope*)"], ["backbones=glob(nope*): ", "no option that matches"]),
        (["train.seed=" + "9" * 5000], ["train.seed=999", "digits"]),
        (["train.seed=" + "[" * 500 + "]" * 500], ["train.seed=[[[", "brackets"]),
        (["hydra.mode=[1]"], ["hydra.mode=[1]: Value [1]"]),
        (["hydra.launcher._target_=null"], ["hydra.launcher._target_=null: ", "not Optional"]),
        (["-m", "hydra.launcher._target_="], ["Hydra: RuntimeError: ", "HYDRA_FULL_ERROR=1"]),
        (["-m", "hydra.sweeper.max_batch_size=0"], ["Hydra: AssertionError"]),
        (["-m", "hydra.sweep.dir=/proc/x"], ["No such file or directory: '/proc/x'"]),
        (["~train=[]"], ["Hydra: ValueError: "]),
        (["--resolve"], ["Hydra: ValueError: The --resolve flag"]),
        (["--experimental-rerun", "x.pickle"], ["--experimental-rerun reads a pickle"]),
        (["--experimental-rerun=x.pickle"], ["--experimental-rerun reads a pickle"]),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) and "=" in value[-1] else "",
)
def test_mistake_is_one_line_and_starts_no_job(
    arguments: list[str],
    messages: list[str],
    call: Callable[..., int],
    jobs: list[Namespace],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert call(*arguments, "train.output_dir=here") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 350
    for message in messages:
        assert message in line
    assert not jobs
    assert not list(tmp_path.glob("here/*"))


@pytest.mark.parametrize(
    ("override", "target", "extra"),
    [
        ("hydra/launcher=joblib", "hydra_plugins.hydra_joblib_launcher", "joblib"),
        ("hydra/launcher=ray", "hydra_plugins.hydra_ray_launcher", "ray"),
        ("hydra/launcher=submitit_slurm", "hydra_plugins.hydra_submitit_launcher", "submitit"),
        ("hydra/sweeper=optuna", "hydra_plugins.hydra_optuna_sweeper", "optuna"),
    ],
)
@pytest.mark.parametrize("raises", [False, True])
def test_missing_package_names_the_extra(
    override: str,
    target: str,
    extra: str,
    raises: bool,
    call: Callable[..., int],
    jobs: list[Namespace],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    find_spec = importlib.util.find_spec

    def missing(name: str, package: str | None = None) -> Any:
        if name != target:
            return find_spec(name, package)
        if raises:  # as without any package below hydra_plugins
            raise ModuleNotFoundError(name)
        return None

    monkeypatch.setattr(importlib.util, "find_spec", missing)
    assert call("-m", override) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {override} ")
    assert f"'d2timm[{extra}]'" in line
    assert not jobs


# Sweeps


def test_sweep_runs_every_combination(
    call: Callable[..., int], jobs: list[Namespace], leaderboards: list[Path], tmp_path: Path
) -> None:
    same = ["data=shapes", "train.seed=3", "+train.mine=4", "train.output_dir=out", "train.pause_at=5"]
    assert call("-m", "backbone=test_vit,test_resnet", "model.backbone.out_channels=16,32", *same) == 0
    seen = [(job.name, job.cfg.model.backbone.out_channels, job.cfg.train.seed) for job in jobs]
    assert seen == [("test_vit", 16, 3), ("test_vit", 32, 3), ("test_resnet", 16, 3), ("test_resnet", 32, 3)]
    # values that all runs share are not part of a name
    assert [job.folder.name for job in jobs] == [
        f"backbone={name},out_channels={n}" for name in ("test_vit", "test_resnet") for n in (16, 32)
    ]
    (sweep,) = leaderboards
    assert {job.folder.parent.resolve() for job in jobs} == {sweep.resolve()}
    assert sweep.resolve().parent == tmp_path / "out"


def test_sweep_over_paths(call: Callable[..., int], jobs: list[Namespace], tmp_path: Path) -> None:
    (tmp_path / "a,b (1)").mkdir()
    folder = "it's, (here)"
    same = ["data.val_json=2024/é.json", "data.val_images=a,b (1)"]
    assert call("-m", "data.root=1e3,a,b (1),~/x", *same, f"hydra.sweep.dir={folder}") == 0
    expected = ["1e3", "a,b (1)", str(Path("~/x").expanduser())]
    assert [job.cfg.data.root for job in jobs] == expected
    assert {(job.cfg.data.val_json, job.cfg.data.val_images) for job in jobs} == {("2024/é.json", "a,b (1)")}
    assert len({job.folder.name for job in jobs}) == 3
    for job in jobs:
        assert job.folder.parent.resolve() == tmp_path / folder
        assert job.folder.name.startswith("root=")
        assert job.folder.name.isascii()
    assert call(*jobs[1].hydra.overrides.task) == 0, "the recorded command repeats the run"
    assert jobs[-1].cfg.data == jobs[1].cfg.data


@pytest.mark.parametrize("flag", [[], ["-m"]])
def test_seeds(flag: list[str], call: Callable[..., int], jobs: list[Namespace]) -> None:
    assert call(*flag, "--seeds", "2", "backbone=test_vit", "hydra.sweep.dir=here") == 0
    assert [job.cfg.train.seed for job in jobs] == [0, 1]
    assert [job.folder.name for job in jobs] == ["seed=0", "seed=1"]
    assert "seeds" not in vars(jobs[0].options)


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--seeds", "2", "train.seed=3"]])
def test_wrong_seeds(
    arguments: list[str], call: Callable[..., int], jobs: list[Namespace], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert "--seeds" in capfd.readouterr().err
    assert not jobs


def test_help_of_hydra_is_immediate(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overrides, "store_groups", lambda nodes: pytest.fail("a minute for all names"))
    with pytest.raises(SystemExit) as ended:
        call("--hydra-help")
    assert not ended.value.code
    assert "Configuration groups" in capfd.readouterr().out


def test_pattern_selects_names(call: Callable[..., int], jobs: list[Namespace]) -> None:
    assert call("-m", "backbone=glob(test_vit*)", "hydra.sweep.dir=here") == 0
    assert sorted(job.name for job in jobs) == timm.list_models("test_vit*")


def test_wrong_name_in_a_sweep_reaches_its_job(
    call: Callable[..., int], jobs: list[Namespace], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("-m", "backbone=test_vit,test_vitt,test_resnet", "hydra.sweep.dir=here") == 0
    assert [job.name for job in jobs] == ["test_vit", "test_vitt", "test_resnet"]
    assert capfd.readouterr().err == ""


def test_mistake_in_a_sweep_ends_it_with_one_line_and_the_leaderboard(
    call: Callable[..., int],
    leaderboards: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(cfg: DictConfig, options: Namespace) -> None:
        raise ConfigError("here holds a run of other settings")

    monkeypatch.setattr(hydra_app, "run_job", fail)
    assert call("-m", "backbone=test_vit,test_resnet", "hydra.sweep.dir=here") == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert lines == ["error: here holds a run of other settings"]
    assert leaderboards == [Path("here")]


def test_interrupted_sweep_has_a_leaderboard(
    call: Callable[..., int], leaderboards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(cfg: DictConfig, options: Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hydra_app, "run_job", interrupt)
    assert call("-m", "train.seed=1,2", "hydra.sweep.dir=here") == 130
    assert leaderboards == [Path("here")]


def test_dry_run_of_a_sweep_has_no_leaderboard(
    call: Callable[..., int], jobs: list[Namespace], leaderboards: list[Path]
) -> None:
    assert call("-m", "--dry-run", "train.seed=1,2", "hydra.sweep.dir=here") == 0
    assert len(jobs) == 2
    assert not leaderboards


def test_wrong_option_in_a_sweep_starts_no_job(
    call: Callable[..., int], jobs: list[Namespace], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("-m", "neck=fpn,nope", "hydra.sweep.dir=here") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: neck=nope: did you mean none?")
    assert "bifpn, fpn, fpn_gn, fpn_p6p7, " in line
    assert not jobs


def test_failed_runs_set_the_exit_code(
    call: Callable[..., int], jobs: list[Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydra_app, "print_leaderboard", lambda sweep: 1)
    assert call("hydra.mode=MULTIRUN", "train.seed=1,2", "hydra.sweep.dir=here") == 1  # as -m
    assert [job.cfg.train.seed for job in jobs] == [1, 2]


# Errors of libraries


def raised_by(function: Callable[[], Any]) -> BaseException:
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        function()
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("ours"), "ours"),
        (HydraException("first\n  second\nthird\nfourth"), "first second third"),
        (HydraException(""), "HydraException"),
        (OverrideParseException("x", "no\n  see here\nmore"), "no:   see here"),
        (
            MissingConfigException("long", "neck/fpm", ["pafpn", "fpn"]),
            "neck=fpm: did you mean fpn or pafpn?; neck is one of fpn, pafpn",
        ),
        (
            MissingConfigException("long", "backbone/resnt", ["resnet"]),
            "backbone=resnt: did you mean resnet?",
        ),
        (MissingConfigException("no such file\nelse", None, None), "no such file else"),
    ],
)
def test_error_is_described_in_one_line(error: BaseException, expected: str) -> None:
    assert hydra_app.explain(error) == expected


def test_description_includes_the_cause() -> None:
    tree = OmegaConf.create({"train": {"seed": 1}})
    OmegaConf.set_struct(tree, True)
    error = HydraException("Could not override 'train.sed'.\nTo append …")
    error.__cause__ = raised_by(lambda: tree.train.sed)
    expected = (
        "Could not override 'train.sed': train has no key 'sed'; did you mean seed? (+key=value adds one)"
    )
    assert hydra_app.explain(error) == expected
