r"""Find the best backbone for your photographs in a given time.

    d2timm choose data.root=FOLDER --hours 8
    d2timm choose data.root=FOLDER --by 22:00 --max-ms 30 --licence commercial
    d2timm choose data.train_json=train.json data.train_images=images --hours 2 \
        --candidates 'resnet50,convnext_tiny.in12k,mobilenetv4_conv_*'

The candidates are measured, compared by ever longer trainings, and the best ones trained with several
seeds. It ends before the given time with one sentence, a page (report.html), a trained detector and its
export. The keys are those of training; the images to choose by and to test on are held out. The same command
again continues a choice that was interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_trust

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_trust(parser)
    add = parser.add_argument
    add("--by", metavar="TIME", help="when it must have ended: 22:00, or 2026-12-31T07:00")
    add("--hours", type=float, metavar="H", help="or how many hours it may take")
    add(
        "--output", type=Path, default=Path("output/choice"), metavar="DIR", help="its folder (output/choice)"
    )
    add(
        "--candidates",
        metavar="LIST",
        help="names, patterns and @FILE with commas between; NAME=FILE has weights of your own, NAME=random "
        "none (17 backbones of as many kinds)",
    )
    add(
        "--licence",
        metavar="NAME",
        help="of the pretrained weights: commercial, or a name such as apache-2.0",
    )
    add("--max-ms", type=float, metavar="MS", help="milliseconds per image on this machine, at most")
    add("--max-params", type=float, metavar="N", help="parameters of the detector in millions, at most")
    add("--device", metavar="NAME", help="cpu or cuda (cuda if there is one)")
    add("--jobs", type=int, metavar="N", help="trainings at the same time (one for each GPU)")
    add("--config-file", metavar="FILE", help="the config (Mask R-CNN, or Faster R-CNN for boxes alone)")
    add("--resume", action="store_true", help="go on with a choice; the same command does so without it")
    add("overrides", nargs="*", metavar="key=value", help="overrides of the config, such as data.root=FOLDER")


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code is 1 if nothing could be decided."""
    from ..errors import ConfigError
    from ..utils.imports import import_quickly
    from ..utils.text import printable

    if options.resume and not (options.output / "choice.json").is_file():
        raise ConfigError(f"--resume: {options.output} has no choice")
    import_quickly("d2timm.engine.process")
    from ..choose.candidates import find_candidates
    from ..choose.choose import Request, choose
    from ..choose.context import Limits

    device = [f"train.device={options.device}"] if options.device else []
    parameters = None if options.max_params is None else 1e6 * options.max_params
    choice = choose(
        Request(
            options.output,
            find_candidates(options.candidates),
            [*options.overrides, *device],
            options.config_file,
            options.by,
            options.hours,
            Limits(options.licence, parameters, options.max_ms),
            options.jobs,
            ["d2timm", "choose", *_given(options)],
        )
    )
    verdict = choice.verdict
    assert verdict, "a choice that has ended has one"
    print()
    print(printable(verdict.sentence))
    print(f"\nThe page: {options.output / 'report.html'}")
    if verdict.command:
        print(f"The detector: {printable(verdict.command)}")
    return 0 if verdict.name else 1


def _given(options: argparse.Namespace) -> list[str]:
    """The arguments of the command line."""
    words = []
    for name, value in vars(options).items():
        if name not in ("overrides", "resume") and value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return [*words, *options.overrides]
