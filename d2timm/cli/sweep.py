"""Train a detector composed by Hydra, or sweep over many.

d2timm sweep backbone=xcit_small_12_p8_224 roi_heads=box
d2timm sweep model=fcos neck=bifpn roi_heads=none
d2timm sweep -m backbone=resnet18,convnext_atto roi_heads=box,mask
d2timm sweep -m 'backbone=glob(convnextv2_*)'
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..utils.files import resource_folder
from .train import add_run_arguments

__all__ = ["add_arguments", "parse", "run"]

WIDTH = 110
HELP = """{title}

Groups (choose an option by group=option, several with -m by group=a,b):
{groups}

Any value of the config is changed by key=value (--cfg job prints all of it), such as
  model.backbone.bottom_up.model_name=convnext_tiny train.max_iter=1000 train.output_dir=output/mine
  data.train_json=… data.train_images=… data.val_json=… data.val_images=…   your own photographs
A key that does not exist is an error; +key=value adds one.

Sweeps:
  -m                    a run for each combination of values, into a folder with a leaderboard
  +sweep=NAME           a named sweep: {sweeps}
  hydra/launcher=NAME   where the runs go: basic (here, one by one), {launchers}
  hydra/sweeper=NAME    what chooses them: basic (all), {sweepers}
  hydra.sweep.dir=DIR   the same folder again: finished runs are skipped, interrupted ones continue

Flags:
{flags}
Hydra's own flags: --cfg job, --info, --shell-completion, … (see --hydra-help)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that are not Hydra's."""
    add_run_arguments(parser)
    parser.add_argument(
        "--repeat-failed", action="store_true", help="run again what failed in this sweep folder before"
    )
    parser.set_defaults(resume_lost=True)  # interrupted runs; not while a sweep itself starts again


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Separate the flags from Hydra's arguments, which become ``options.hydra``; print the help if asked."""
    parser.allow_abbrev = False
    if {"-h", "--help"} & {*arguments}:
        print(_help(parser))
        parser.exit()
    options, options_of_hydra = parser.parse_known_args(arguments)
    options.hydra = options_of_hydra
    return options


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..utils.quiet import silence

    silence()
    from ..sweep.hydra_app import main

    arguments = options.hydra
    del options.hydra  # jobs in other processes receive the flags only
    return main(options, arguments)


def _help(parser: argparse.ArgumentParser) -> str:
    """The options by group, by the names of their files."""
    common, conf = resource_folder("lazy_configs") / "common", resource_folder("conf")

    def options(folder: Path, pattern: str) -> str:
        return ", ".join(sorted(file.stem for file in folder.glob(pattern)))

    groups = {folder.name: options(folder, "*.py") for folder in sorted(common.iterdir()) if folder.is_dir()}
    groups["backbone"] = "any name of timm, such as convnext_tiny: see d2timm inspect --list"
    return HELP.format(
        title=(__doc__ or "").strip(),
        groups="\n".join(
            textwrap.fill(f"  {group:14} {names}", WIDTH, subsequent_indent=" " * 17)
            for group, names in groups.items()
            if names
        ),
        sweeps=options(conf / "sweep", "*.yaml"),
        launchers=options(conf / "hydra" / "launcher", "*.yaml"),
        sweepers=options(conf / "hydra" / "sweeper", "*.yaml"),
        flags=parser.format_help().partition("options:\n")[2],
    )
