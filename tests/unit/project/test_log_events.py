"""docs/reference/logs.md lists the log events about jobs and their fields, as the code has them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from config.logs import FIELDS
from voicequeue.domain.states import State

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")

#: The field that a line has under another name: `timestamp`.
RENAMED = {"at"}

LEVELS = {"info", "warning", "error", "exception", "critical"}


def documented_events() -> set[str]:
    """Return the events of the table."""
    table = PAGE.partition("| event | from | meaning |\n|---|---|---|\n")[2].partition("\n\n")[0]
    return {event for row in table.splitlines() for event in re.findall(r"`([^`]+)`", row.split("|")[1])}


def nodes() -> Iterator[ast.AST]:
    """Yield every node of the code of tasks and workers."""
    for folder in ("tasks", "workers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def as_documented(text: str) -> str:
    """Return a log template as the documentation writes it: with an ellipsis for each argument."""
    return re.sub(r"%[a-z]", "…", text)


def test_every_documented_event_is_in_the_code() -> None:
    """As a literal, or as a state: transitions are logged under the name of the new state."""
    literals = {
        as_documented(node.value) for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

    events = documented_events() - {"source"}  # `queued` with `source`
    assert len(events) > len(State)
    assert events - literals - set(State) == set()


def test_every_event_about_a_job_is_documented() -> None:
    """Those logged with the fields of a job, a callback, a message or a request, at the level INFO or above."""
    logged = {
        as_documented(node.args[0].value)
        for node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and any(argument.arg == "extra" for argument in node.keywords)
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }

    assert "submitted" in logged
    assert logged - documented_events() == set()


def test_every_field_is_documented() -> None:
    """The fields that lines may have."""
    assert set(FIELDS) - RENAMED - set(re.findall(r"`([a-z_]+)`", PAGE)) == set()
