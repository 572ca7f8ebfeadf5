"""`completion`: the script by which a shell completes commands, options and values."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any

import typer

from voicequeue.cli.terminal import AsJson, argument, print_json

#: The variable in which the shell's script asks for completions.
VARIABLE = "_VOICEQUEUE_COMPLETE"


class Shell(StrEnum):
    """A shell that can complete the command."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, argument("SHELL", help=f"{', '.join(list(Shell)[:-1])} or {list(Shell)[-1]}.")],
    as_json: AsJson = False,
) -> None:
    """Print the script that completes commands and options in your shell.

    For bash, add this line to ~/.bashrc: source <(voicequeue completion bash)

    For zsh, add it to ~/.zshrc, after compinit: source <(voicequeue completion zsh)

    For fish: voicequeue completion fish > ~/.config/fish/completions/voicequeue.fish
    """
    script = _typer_completion().get_completion_script(prog_name="voicequeue", complete_var=VARIABLE, shell=shell)
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        typer.echo(script)


def prepare() -> None:
    """Register the shells, if one asks for completions."""
    if os.environ.get(VARIABLE):
        _typer_completion().completion_init()


def _typer_completion() -> Any:
    """Return Typer's module for shells. Its functions have no public name, and are the same in all releases."""
    return import_module("typer.completion")
