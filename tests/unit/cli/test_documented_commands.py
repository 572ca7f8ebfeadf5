"""Every command line in the documentation has a command, and options that this command has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from voicequeue.cli import app

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: A command line, up to a pipe, a comment or the end of an inline code.
_COMMAND = re.compile(r"(?:^|[`\s(])voicequeue ((?:[a-z][a-z-]*)(?: [^`|;#)\n]*)?)")
_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*|-[a-zA-Z])(?=[\s=,]|$)")

COMMANDS = {name: app.load(name) for name in app.commands}


def documented() -> Iterator[tuple[str, str]]:
    """Yield each command line with its place."""
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            for match in _COMMAND.finditer(line):
                if match[1].split()[0] in COMMANDS:
                    yield f"{page.relative_to(ROOT)}:{number}", match[1]


DOCUMENTED = list(documented())


def options_of(command: Any, words: list[str]) -> set[str]:
    """Return the options of a command, or of the command of a group that the words name."""
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return {"--help"} | {option for param in command.params for option in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name: str) -> None:
    """At least once, as a reader would type it."""
    assert any(line.split()[0] == name for _, line in DOCUMENTED)


def test_documented_options_exist() -> None:
    """A renamed option is renamed in all pages."""
    assert len(DOCUMENTED) > 150
    wrong = [
        f"{place}: {option} in: voicequeue {line}"
        for place, line in DOCUMENTED
        for option in _OPTION.findall(line)
        if option not in options_of(COMMANDS[line.split()[0]], line.split()[1:])
    ]
    assert wrong == []
