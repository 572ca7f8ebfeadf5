"""`doctor` without `--audit`: is the deployment sound, and what is to be done if it is not."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

from redis.exceptions import RedisError

from voicequeue.cli.terminal import CannotBegin, out, print_json, safe
from voicequeue.client.queue import DEFAULT_URL
from voicequeue.diagnostics import checkup, neighbours
from voicequeue.diagnostics.checkup import Level, Remark
from voicequeue.storage.job_store import Store, connect
from voicequeue.storage.keyspace import DEFAULT_PREFIX

MARKS = {
    Level.FINE: "[green]✓[/]",
    Level.NOTE: "[blue]i[/]",
    Level.WARNING: "[yellow]![/]",
    Level.ERROR: "[red]✗[/]",
    Level.UNREACHABLE: "[red]?[/]",
}

#: The worst comes last.
ORDER = (Level.FINE, Level.NOTE, Level.WARNING, Level.ERROR, Level.UNREACHABLE)

ELSEWHERE = Remark(
    "settings",
    Level.NOTE,
    "settings, upstream, the public URL and Flower were not looked at: this is not where the workers run",
    "run it in their checkout or image",
)


def examine(*, strict: bool, as_json: bool) -> int:
    """Look at everything, tell it, and give the exit code."""
    found = sorted(_found(), key=lambda remark: ORDER.index(remark.level))
    if as_json:
        print_json({"sound": _code(found, strict=strict) == 0, "remarks": [each.as_dict() for each in found]})
    else:
        _print(found)
    return _code(found, strict=strict)


def _code(found: list[Remark], *, strict: bool) -> int:
    levels = {remark.level for remark in found}
    if Level.UNREACHABLE in levels:
        return 3
    return int(Level.ERROR in levels or (strict and Level.WARNING in levels))


def _found() -> Iterator[Remark]:
    house = _house()
    yield from (house.remarks() if house else [ELSEWHERE])
    url = os.environ.get("REDIS_URL") or DEFAULT_URL
    prefix = os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX
    try:
        with connect(url) as redis:
            store = Store(redis, prefix)
            facts = checkup.look(redis, store)
            beside = neighbours.look(redis, prefix)
    except RedisError as error:
        todo = "is REDIS_URL right, and does it run?"
        yield Remark("redis", Level.UNREACHABLE, f"Redis does not answer: {type(error).__name__}", todo)
        return
    except ValueError as error:
        raise CannotBegin(f"{error}; see REDIS_URL and VOICEQUEUE_PREFIX") from None
    if house and any(heard.facts for heard in facts.heard):
        facts = _beside(house, facts)
    yield from checkup.remarks(facts)
    yield from neighbours.remarks(beside)


def _beside(house: ModuleType, facts: checkup.Facts) -> checkup.Facts:
    """With this shell among the processes: what it would start has the settings that it has."""
    try:
        return replace(facts, heard=[*facts.heard, house.here()])
    except SystemExit:  # its settings are bad, which was told
        return facts


def _house() -> ModuleType | None:
    """Return the checks of the workers' own code; None where Python's path does not lead to it.

    The working directory is not searched: it may be a folder of another user, whose modules must not run.
    """
    try:
        return importlib.import_module("workers.doctor")
    except ImportError:
        return None


def _print(found: list[Remark]) -> None:
    for remark in found:
        out.print(f"{MARKS[remark.level]} [bold]{remark.check}[/]  {safe(remark.what)}", soft_wrap=True)
        if remark.todo:
            out.print(f"    → {safe(remark.todo)}", soft_wrap=True)
    bad = sum(remark.level in (Level.ERROR, Level.UNREACHABLE) for remark in found)
    warned = sum(remark.level is Level.WARNING for remark in found)
    if bad or warned:
        out.print(f"\n[bold]{bad} to mend, {warned} to look at[/]")
    else:
        out.print("\n[bold green]sound[/]; voicequeue doctor --audit compares the indexes with the records")
