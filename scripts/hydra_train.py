#!/usr/bin/env python3
"""Train and evaluate a detector composed by Hydra, or sweep over many.

python scripts/hydra_train.py backbone=xcit_small_12_p8_224 roi_heads=box
python scripts/hydra_train.py model=fcos neck=bifpn roi_heads=none
python scripts/hydra_train.py -m backbone=resnet18,convnext_atto roi_heads=box,mask
python scripts/hydra_train.py -m 'backbone=glob(convnextv2_*)'
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

COMMON = Path(__file__).parent.parent / "lazy_configs" / "common"
CONF = Path(__file__).parent.parent / "conf"
WIDTH = 110
HELP = """{title}

Groups (choose an option by group=option, several with -m by group=a,b):
{groups}

Any value of the config is changed by key=value (--cfg job shows all), such as
  model.backbone.bottom_up.model_name=convnext_tiny train.max_iter=1000 train.output_dir=output/mine
  data.train_json=… data.train_images=… data.val_json=… data.val_images=…   your own photographs
A key that does not exist is an error; +key=value adds one.

Sweeps:
  -m                    a run for each combination of values, into a folder with a leaderboard
  +sweep=NAME           a named sweep: {sweeps}
  hydra/launcher=NAME   where the runs go: basic (here, one by one), {launchers}
  hydra/sweeper=NAME    who chooses them: basic (all), {sweepers}
  hydra.sweep.dir=DIR   the same folder again: what is done is skipped, what was cut off goes on

Flags:
{flags}
Hydra's own flags: --cfg job, --info, --shell-completion, … (--hydra-help tells)"""


def parser() -> argparse.ArgumentParser:
    """The flags that are not Hydra's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="this text")
    add("--resume", action="store_true", help="go on from the last checkpoint in train.output_dir")
    add("--eval-only", action="store_true", help="evaluate train.init_checkpoint or the last one")
    add("--dry-run", action="store_true", help="tell what would be built; no GPU, weights or data")
    add("--repeat-failed", action="store_true", help="run again what failed in this sweep folder before")
    parser.set_defaults(resume_lost=True)  # runs that were cut off; within a sweep that goes on, it is not
    add("--num-gpus", type=int, default=1, help="GPUs a run; processes where there are none")
    add("--num-machines", type=int, default=1)
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    add("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0; auto: this machine only")
    return parser


def help_text() -> str:
    """What ``--help`` prints: options by group, without reading them."""

    def options(folder: Path, pattern: str) -> str:
        return ", ".join(sorted(file.stem for file in folder.glob(pattern)))

    groups = {folder.name: options(folder, "*.py") for folder in sorted(COMMON.iterdir()) if folder.is_dir()}
    groups["backbone"] = "any of timm's names, such as convnext_tiny: scripts/inspect_backbone.py --list"
    flags = argparse.ArgumentParser.format_help(parser())
    return HELP.format(
        title=(__doc__ or "").strip(),
        groups="\n".join(
            textwrap.fill(f"  {group:14} {told}", WIDTH, subsequent_indent=" " * 17)
            for group, told in groups.items()
            if told
        ),
        sweeps=options(CONF / "sweep", "*.yaml"),
        launchers=options(CONF / "hydra" / "launcher", "*.yaml"),
        sweepers=options(CONF / "hydra" / "sweeper", "*.yaml"),
        flags=flags.partition("options:\n")[2],
    )


def main() -> int:
    """Command line; returns the exit code."""
    options, arguments = parser().parse_known_args()
    if options.help:
        print(help_text())
        return 0
    from d2timm.noise import silence

    silence()
    from d2timm.hydra_main import main as run

    return run(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
