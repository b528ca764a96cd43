"""Print the shell code that completes the arguments of d2timm.

    eval "$(d2timm completion bash)"        # in ~/.bashrc
    eval "$(d2timm completion zsh)"         # in ~/.zshrc
    d2timm completion fish | source         # in ~/.config/fish/config.fish

It completes commands, options and the names of models.
"""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["d2timm"], shell=options.shell))
    return 0
