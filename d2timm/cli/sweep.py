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

from ..errors import ConfigError
from ..utils.files import resource_folder
from .train import add_run_arguments

__all__ = ["add_arguments", "parse", "run"]

WIDTH = 110
HELP = """{usage}
{title}

{examples}

Groups (group=option chooses an option, and with -m group=a,b several):
{groups}

key=value overrides any value of the config, which --cfg job prints:
  model.backbone.bottom_up.model_name=convnext_tiny train.max_iter=1000 train.output_dir=output/mine
  data.train_json=… data.train_images=… data.val_json=… data.val_images=…   your own photographs
A key that does not exist is an error; +key=value adds one. A path needs no other quotes than your shell's.

Sweeps:
  -m                    one run for each combination of values, in a folder with a leaderboard
                        (a comma in a path that exists, or in quotes, 'data.root="a,b",c', separates nothing)
  +sweep=NAME           a named sweep: {sweeps}
  hydra/launcher=NAME   where the runs go: basic (here, one by one), {launchers}
  hydra/sweeper=NAME    how values are chosen: basic (all), {sweepers}
  --seeds 3             each combination with three seeds, one entry of the leaderboard
  hydra.sweep.dir=DIR   an earlier folder: finished runs are skipped, interrupted runs continue

Flags:
{flags}
Flags of Hydra: --cfg job, --info, --shell-completion, … (see --hydra-help)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that are not Hydra's."""
    add_run_arguments(parser)
    parser.add_argument(
        "--repeat-failed", action="store_true", help="repeat the failed runs of a sweep folder"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="repeat each run of a sweep with the seeds 0 to N - 1"
    )
    parser.set_defaults(resume_lost=True)  # whether to continue runs whose worker was killed


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the flags; the arguments of Hydra become ``options.hydra``. Prints the help on request."""
    parser.allow_abbrev = False
    if {"-h", "--help"} & {*arguments}:
        print(_help(parser))
        parser.exit()
    options, hydra_arguments = parser.parse_known_args(arguments)
    options.hydra = hydra_arguments
    return options


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..sweep.hydra_app import main

    arguments = [*options.hydra, *_seeds(options.seeds, options.hydra)]
    del options.hydra, options.seeds  # jobs in other processes receive the other flags
    return main(options, arguments)


def _seeds(number: int | None, arguments: Sequence[str]) -> list[str]:
    """The arguments of a sweep over seeds."""
    if number is None:
        return []
    if number < 1:
        raise ConfigError(f"--seeds {number}: at least 1")
    if given := [text for text in arguments if text.lstrip("+").startswith("train.seed=")]:
        raise ConfigError(f"--seeds {number} and {given[0]}: leave one of them out")
    return [*([] if "-m" in arguments else ["-m"]), f"train.seed=range({number})"]


def _help(parser: argparse.ArgumentParser) -> str:
    """The help with the options of each group, which are the names of files."""
    common, conf = resource_folder("lazy_configs") / "common", resource_folder("conf")

    def names(folder: Path, pattern: str) -> str:
        return ", ".join(sorted(file.stem for file in folder.glob(pattern)))

    groups = {folder.name: names(folder, "*.py") for folder in sorted(common.iterdir()) if folder.is_dir()}
    groups["backbone"] = "the name of any timm model, such as convnext_tiny; d2timm inspect --list lists them"
    title, _, examples = (__doc__ or "").strip().partition("\n\n")
    return HELP.format(
        usage=f"usage: {parser.prog} [FLAG ...] [group=option ...] [key=value ...]\n",
        title=title,
        examples=textwrap.indent(examples, "    "),
        groups="\n".join(
            textwrap.fill(f"  {group:14} {options}", WIDTH, subsequent_indent=" " * 17)
            for group, options in groups.items()
            if options
        ),
        sweeps=names(conf / "sweep", "*.yaml"),
        launchers=names(conf / "hydra" / "launcher", "*.yaml"),
        sweepers=names(conf / "hydra" / "sweeper", "*.yaml"),
        flags=parser.format_help().partition("options:\n")[2],
    )
