"""`doctor`: check a deployment, or audit and repair its indexes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Annotated

import typer

from voicequeue.cli.examine import run_checks
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    Yes,
    confirm,
    err,
    escape_untrusted,
    flag,
    open_queue,
    out,
    print_json,
    refuse,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.storage.audit.findings import Finding
from voicequeue.texts import pluralize

#: The most findings of one kind that are shown; the others are counted.
SHOWN_MAX = 50


def doctor(
    audit: Annotated[bool, flag("--audit", help="Compare indexes and counters with the job records instead.")] = False,
    repair: Annotated[bool, flag("--repair", help="With --audit: repair the findings.")] = False,
    strict: Annotated[bool, flag("--strict", help="Exit with 1 for warnings too.")] = False,
    yes: Yes = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Check settings, Redis, upstream, the public URL, processes and versions.

    Shows what to do about each problem. Safe while workers are running. Exit codes: 0 if there is no problem, or all
    were repaired; 1 if there is one; 3 if Redis or upstream cannot be reached.
    """
    if repair and not audit:
        raise typer.BadParameter("--repair requires --audit")
    if not repair:
        refuse("without --repair", yes=yes, reason=reason)
    if audit:
        refuse("with --audit", strict=strict)
    else:
        raise typer.Exit(run_checks(strict=strict, as_json=as_json))
    with open_queue(reason=reason) as jobs:
        findings = jobs.audit()
        if not repair:
            _show(findings, as_json=as_json)
            raise typer.Exit(int(bool(findings)))
        remaining = _repair(jobs, findings, yes=yes, as_json=as_json)
    raise typer.Exit(int(bool(remaining)))


def _repair(jobs: VoiceQueue, findings: list[Finding], *, yes: bool, as_json: bool) -> list[Finding]:
    """Repair the findings, and return those of a second audit."""
    if not as_json:
        _show(findings, as_json=False)
    if findings:
        count = pluralize(len(findings), "finding")
        confirm(f"repair {count}? This changes indexes and counters, but no job records", yes=yes)
    repaired = jobs.repair(findings)
    remaining = jobs.audit() if findings else []
    if as_json:
        print_json(
            {**_as_json(findings), "sound": not remaining, "repaired": len(repaired), "remaining": _dicts(remaining)}
        )
    elif findings:
        out.print(f"{len(repaired):,} repaired{_skipped(len(findings) - len(repaired))}; auditing again")
        _show(remaining, as_json=False)
    return remaining


def _skipped(count: int) -> str:
    return f", {count:,} skipped: the job has changed since, or its right value is not certain yet" if count else ""


def _show(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(findings))
    elif not findings:
        out.print("[green]sound[/]: indexes and counters agree with the job records")
    else:
        _print(findings)
        err.print(f"[red]{pluralize(len(findings), 'finding')}[/]")


def _print(findings: Sequence[Finding]) -> None:
    kind = attrgetter("kind")
    for name, group in groupby(sorted(findings, key=kind), key=kind):
        same_kind = list(group)
        out.print(f"[bold]{escape_untrusted(name)}[/]  {len(same_kind):,}")
        for finding in same_kind[:SHOWN_MAX]:
            out.print(f"  {escape_untrusted(finding)}")
        if len(same_kind) > SHOWN_MAX:
            out.print(f"  … and {len(same_kind) - SHOWN_MAX:,} more")


def _as_json(findings: Sequence[Finding]) -> dict[str, object]:
    return {"sound": not findings, "findings": _dicts(findings)}


def _dicts(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [finding.as_dict() for finding in findings]
