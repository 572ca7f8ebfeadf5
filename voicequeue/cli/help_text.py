"""The help of commands: usage, description, arguments, options and commands, as wide as the terminal.

Typer's own help takes rich, which takes longer to import than everything else of `--help`.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from voicequeue.cli.terminal import styled

#: The widest help; the widest column of names.
WIDTH_MAX, NAMES_MAX = 100, 30


def help_text(command: Any, context: Any) -> str:
    """Return the help of a command or a group of commands."""
    width = min(WIDTH_MAX, shutil.get_terminal_size().columns)
    sections = [
        f"{styled('Usage:', 'bold')} {_usage(command, context)}",
        *(_wrapped(paragraph, width) for paragraph in (command.help or "").split("\n\n")),
        *_parameters(command, context, width),
        *_commands(command, context, width),
        *([_wrapped(command.epilog, width)] if command.epilog else []),
    ]
    return "\n\n".join(section for section in sections if section)


def _usage(command: Any, context: Any) -> str:
    arguments = [_metavar(param) for param in command.params if param.param_type_name == "argument"]
    is_group = hasattr(command, "commands")
    return " ".join([context.command_path, *arguments, "[OPTIONS]", *(["COMMAND"] if is_group else [])])


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _parameters(command: Any, context: Any, width: int) -> Iterator[str]:
    params = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    yield _section("Arguments", ((_metavar(param), _described(param)) for param in arguments), width)
    yield _section("Options", ((_names(param), _described(param)) for param in options), width)


def _names(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len, reverse=True))
    if option.secondary_opts:
        names = f"{names} / {', '.join(option.secondary_opts)}"
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def _described(param: Any) -> str:
    """Return the help of a parameter, with its default, and whether it is required."""
    default = param.default.value if isinstance(param.default, Enum) else param.default
    if param.required and param.param_type_name == "option":
        return f"{param.help} [required]"
    is_shown = getattr(param, "show_default", False) and not callable(default) and default not in (None, False, "", ())
    return f"{param.help} [default: {default}]" if is_shown else str(param.help or "")


def _commands(command: Any, context: Any, width: int) -> Iterator[str]:
    panels: dict[str, list[tuple[str, str]]] = {}
    for name in getattr(command, "commands", ()):
        listed = command.get_command(context, name)
        panel = getattr(listed, "rich_help_panel", None)
        title = panel if isinstance(panel, str) else "Commands"
        panels.setdefault(title, []).append((name, listed.get_short_help_str(limit=200)))
    for title, rows in panels.items():
        yield _section(title, rows, width)


def _section(title: str, rows: Iterable[tuple[str, str]], width: int) -> str:
    """Return a title, and each name beside its text; nothing if there are no rows."""
    listed = list(rows)
    if not listed:
        return ""
    indent = 4 + max((len(name) for name, _ in listed if len(name) <= NAMES_MAX), default=NAMES_MAX)
    lines = [line for name, text in listed for line in _entry(name, text, indent, width)]
    return "\n".join([styled(f"{title}:", "bold"), *lines])


def _entry(name: str, text: str, indent: int, width: int) -> list[str]:
    lines = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False) or [""]
    start = f"  {name}"
    is_long = len(start) + 2 > indent
    first = [start] if is_long else [f"{start:<{indent}}{lines[0]}".rstrip()]
    return [*first, *(" " * indent + line for line in (lines if is_long else lines[1:]))]


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)
