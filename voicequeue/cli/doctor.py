"""`doctor`: is everything as it should be, and if not, mend it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Annotated

import typer

from voicequeue.cli.examine import examine
from voicequeue.cli.terminal import AsJson, Yes, err, out, print_json, queue, safe
from voicequeue.client.queue import VoiceQueue
from voicequeue.storage.audit.audit import Finding

#: How many findings of one kind are shown; the rest is counted.
SHOWN = 50


def doctor(
    audit: Annotated[
        bool, typer.Option("--audit", help="Compare indexes and counters with the job records instead.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="With --audit: mend what it finds.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as well.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Is everything as it should be: settings, Redis, upstream, the public URL, processes, versions?

    It says what to do about each finding. Safe while workers run. Ends with 0 if all is sound (or was mended), with 1
    if something is wrong, with 3 if Redis or upstream cannot be reached.
    """
    if repair and not audit:
        raise typer.BadParameter("--repair mends what --audit finds: give both")
    if not audit:
        raise typer.Exit(examine(strict=strict, as_json=as_json))
    with queue() as jobs:
        findings = jobs.audit()
        if not repair:
            _tell(findings, as_json=as_json)
            raise typer.Exit(int(bool(findings)))
        left = _repair(jobs, findings, yes=yes, as_json=as_json)
    raise typer.Exit(int(bool(left)))


def _repair(jobs: VoiceQueue, findings: list[Finding], *, yes: bool, as_json: bool) -> list[Finding]:
    """What a second audit still finds after the mending."""
    if not as_json:
        _tell(findings, as_json=False)
    if findings and not yes:
        question = f"mend {len(findings):,} findings? Indexes and counters are changed, the job records are not"
        typer.confirm(question, abort=True, err=True)
    mended = jobs.repair(findings)
    left = jobs.audit() if findings else []
    if as_json:
        print_json({**_as_json(findings), "sound": not left, "mended": len(mended), "left": _dicts(left)})
    elif findings:
        out.print(f"{len(mended):,} mended{_moved_on(len(findings) - len(mended))}; looking again")
        _tell(left, as_json=False)
    return left


def _moved_on(count: int) -> str:
    return f", {count:,} left alone: the job had moved on, or nobody can say yet what is right" if count else ""


def _tell(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(findings))
    elif not findings:
        out.print("[green]sound[/]: indexes and counters agree with the job records")
    else:
        _print(findings)
        err.print(f"{len(findings):,} findings", style="red")


def _print(findings: Sequence[Finding]) -> None:
    kind = attrgetter("kind")
    for name, group in groupby(sorted(findings, key=kind), key=kind):
        alike = list(group)
        out.print(f"[bold]{safe(name)}[/]  {len(alike):,}")
        for each in alike[:SHOWN]:
            out.print(f"  {safe(each)}", soft_wrap=True)
        if len(alike) > SHOWN:
            out.print(f"  … and {len(alike) - SHOWN:,} more")


def _as_json(findings: Sequence[Finding]) -> dict[str, object]:
    return {"sound": not findings, "findings": _dicts(findings)}


def _dicts(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [each.as_dict() for each in findings]
