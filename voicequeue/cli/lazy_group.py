"""A group of commands that imports the module of a command when the command is run.

The help of the group lists all commands without their modules, most of which load pydantic and redis.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MethodType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from voicequeue.cli.help_text import help_text
from voicequeue.cli.namespace import with_namespace


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command: its name, its module in voicequeue.cli, and the first line of its help.

    `attribute` is the function of the command in the module, or the Typer app of a group; by default, the name. A
    command that opens the queue has the option `--namespace`.
    """

    name: str
    module: str
    summary: str
    attribute: str = ""
    has_namespace: bool = True

    def load(self) -> Any:
        """Import the module and return the command with its options."""
        gc.disable()  # modules stay: collections during their import would free nothing
        try:
            implementation = getattr(import_module(f"voicequeue.cli.{self.module}"), self.attribute or self.name)
        finally:
            gc.enable()
        if isinstance(implementation, typer.Typer):
            return _with_help(get_command(implementation))
        command = with_namespace(implementation) if self.has_namespace else implementation
        return _single_command(command, self.name, _help(implementation))


class LazyGroup(TyperGroup):
    """A group whose commands are loaded one by one, by the section of the help that lists them."""

    def __init__(self, panels: Mapping[str, Sequence[LazyCommand]], **settings: Any) -> None:
        self._lazy = {command.name: command for commands in panels.values() for command in commands}
        listed = [
            TyperCommand(command.name, help=command.summary, rich_help_panel=panel)
            for panel, commands in panels.items()
            for command in commands
        ]
        super().__init__(commands=listed, **settings)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, self.load(name) if name else command, rest

    def load(self, name: str) -> Any:
        """Return the command of this name with its options."""
        return self._lazy[name].load()

    def get_help(self, ctx: Any) -> str:
        """Return the help."""
        return help_text(self, ctx)


def parameters_of(function: Callable[..., None]) -> list[Any]:
    """Return the options that the parameters of a function declare."""
    return list(_single_command(function, None, None).params)


def _single_command(function: Callable[..., None], name: str | None, text: str | None) -> Any:
    single = typer.Typer(add_completion=False)
    single.command(name, help=text)(function)
    return _with_help(get_command(single))


def _with_help(command: Any) -> Any:
    """Return the command, and all commands of a group, with our help."""
    command.get_help = MethodType(help_text, command)
    for part in getattr(command, "commands", {}).values():
        part.help = _paragraphs(part.help)
        _with_help(part)
    return command


def _help(command: Callable[..., None]) -> str:
    """Return the docstring with one line per paragraph."""
    return _paragraphs(command.__doc__)


def _paragraphs(text: str | None) -> str:
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
