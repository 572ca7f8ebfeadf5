"""`status`, `jobs`, `job`: what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated

import typer

from voicequeue.cli.terminal import (
    AsJson,
    BatchArgument,
    BatchToo,
    JobId,
    coloured,
    one_batch,
    out,
    plain_table,
    print_json,
    queue,
    safe,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.search import Filter
from voicequeue.domain.clip import Clip
from voicequeue.domain.gate import Account, Hold
from voicequeue.domain.job import InArchive, Job, State, Step, charges
from voicequeue.domain.status import ArchiveCounts, Batch, CallbackCounts, RefusedJob, Status, by_priority
from voicequeue.storage.callbacks import Callback

#: So many jobs that upstream refuses are named.
REFUSED_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(status)
    app.command()(jobs)
    app.command()(job)


def status(batch: BatchArgument = None, of: BatchToo = None, as_json: AsJson = False) -> None:
    """The queue at a glance, or one batch of it."""
    batch = one_batch(batch, of)
    with queue() as found:
        now = found.status(batch)
        whole = found.batch(batch) if batch else None
    if as_json:
        print_json({**now.as_dict(batch), **(whole.limits() if whole else {})})
        return
    print_status(now, batch)
    if whole and (told := _limits_of(whole)):
        out.print(f"the batch  {told}")


def _limits_of(batch: Batch) -> str:
    """What somebody set for it alone."""
    set_for_it = {
        "[red]is paused[/]": batch.paused,
        f"has promised {batch.committed:,} credits to jobs in flight and to lost orders": batch.committed > 0,
        f"may spend {batch.max_credits or 0:,} credits": batch.max_credits is not None,
        f"may have {batch.max_in_flight or 0:,} in flight at once": batch.max_in_flight is not None,
    }
    return ", ".join(told for told, holds in set_for_it.items() if holds)


def print_status(now: Status, batch: str | None) -> None:
    """The same for a person."""
    counts = "  ".join(f"{coloured(state)} {count:,}" for state, count in now.states.items() if count)
    out.print(f"[bold]{safe(batch) if batch else 'all jobs'}[/]  {counts or 'nothing yet'}")
    if now.gate.open:
        out.print("gate       [green]open[/]")
    for hold in now.gate.holds:
        shut = "[yellow]on trial[/]" if hold.trial else "[red]closed[/]"
        out.print(f"gate       {shut}: {safe(hold.reason)}{_until(hold)}{_in_brackets(hold.detail)}")
    _print_refused(now.refused)
    for priority, lines in by_priority(now.backlog):
        oldest = span(now.at - min(line.oldest for line in lines))
        out.print(f"backlog    {priority} {sum(line.count for line in lines):,}, the oldest for {oldest}")
    left = f", about {span(now.seconds_left)} to go" if now.seconds_left else ""
    out.print(f"in flight  {now.in_flight:,} of {now.limit:,}; {now.pace:,.1f} succeed a minute{left}")
    out.print(f"credits    {_account(now.account)}; {now.credits:,} spent{' by this batch' if batch else ' in all'}")
    if now.account.drift:
        out.print(f"           [yellow]{now.account.drift}[/]", soft_wrap=True)
    if now.failures:
        out.print("failed     " + ", ".join(f"{code} {count:,}" for code, count in sorted(now.failures.items())))
    if now.rejects:
        out.print(f"rejected   {now.rejects:,} messages, see: voicequeue rejects")
    if now.callbacks.pending or now.callbacks.undelivered:
        out.print(f"callbacks  {_callbacks(now.callbacks)}")
    if now.archive.pending or now.archive.failed:
        out.print(f"archive    {_archive(now.archive)}")
    out.print(f"workers    {f'{now.workers} alive' if now.workers else '[red]none alive[/]'}")


def _print_refused(jobs: Sequence[RefusedJob]) -> None:
    """Jobs that upstream refuses while it takes others."""
    for job in jobs[:REFUSED_SHOWN]:
        said = f"{job.times:,} times while others are taken{_in_brackets(job.message)}"
        out.print(f"refused    job {job.job_id}, {said}; again at {clock(job.until)}")
    if len(jobs) > REFUSED_SHOWN:
        out.print(f"refused    {len(jobs) - REFUSED_SHOWN:,} more jobs")


def _callbacks(counts: CallbackCounts) -> str:
    nobody = "" if counts.workers else " [red]and nobody delivers them[/]"
    return f"{counts.pending:,} pending{nobody}, {counts.undelivered:,} undelivered, see: voicequeue callbacks"


def _archive(counts: ArchiveCounts) -> str:
    nobody = "" if counts.workers or not counts.pending else " [red]and nobody archives them[/]"
    return f"songs of {counts.pending:,} jobs pending{nobody}, of {counts.failed:,} failed, see: voicequeue archive"


def _until(hold: Hold) -> str:
    if hold.trial:
        return ", one job at a time is tried"
    return f" until {clock(hold.until)}" if hold.until else ""


def _in_brackets(text: str) -> str:
    return f" ({safe(text)})" if text else ""


def _account(account: Account) -> str:
    if account.left is None:
        return f"left: not asked yet; {account.spent_today:,} spent today"
    promised = f" ({account.committed:,} of them for jobs in flight or unsure)" if account.committed else ""
    return f"{account.left:,} left{promised}; {account.spent_today:,} spent today"


def span(seconds: float) -> str:
    """So long, as people say it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def jobs(
    batch: BatchArgument = None,
    of: BatchToo = None,
    called: Annotated[
        str | None, typer.Option(help="Only jobs with exactly this key, name, title, persona, task id or metadata.")
    ] = None,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs: a batch in the order it came, a state by the latest to enter it."""
    with queue() as found:
        page = list(islice(_found(found, Filter(state=state, batch=one_batch(batch, of), called=called)), limit))
    if as_json:
        print_json([each.as_dict() for each in page])
        return
    table = plain_table("id", "state", "stage", "name", "persona", "credits", "what happened")
    for each in page:
        table.add_row(*_job_row(each))
    out.print(table)


def _found(jobs: VoiceQueue, wanted: Filter) -> Iterator[Job]:
    """All such jobs, read a page at a time."""
    if wanted.called is None:
        yield from jobs.jobs(state=wanted.state, batch=wanted.batch)
        return
    cursor: str | None = None
    while True:
        page = jobs.find(wanted, cursor=cursor)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _job_row(each: Job) -> tuple[str, ...]:
    name = each.spec.name or each.voice_name or (each.spec.song and each.spec.song.title) or ""
    happened = f"{each.failure.code}: {each.failure.message}" if each.failure else ""
    happened = "to be cancelled" if each.cancelling else happened
    persona = each.persona_id or ""
    return each.id, coloured(each.state), each.stage, safe(name), safe(persona), str(each.credits), safe(happened)


def job(job_id: JobId, as_json: AsJson = False) -> None:
    """One job: where it stands, its timeline, its charges and its songs."""
    with queue() as found:
        each = found.get(job_id)
        timeline = found.timeline(job_id)
        maker = found.waits_for(each)
        told = found.callback(each.callback_id) if each.callback_id else None
    if as_json:
        callback = {"id": each.callback_id, "delivered": told is None} if each.callback_id else None
        steps = [step.as_dict() for step in timeline]
        print_json({**each.as_dict(), "answer": each.answer, "callback": callback, "timeline": steps})
        return
    print_job(each, as_json=False)
    if maker is not None:
        out.print(f"  {'waits for':<10} the voice that job {safe(maker)} makes", soft_wrap=True)
    if each.callback_id:
        out.print(f"  {'callback':<10} {each.callback_id} {_told(told)}", soft_wrap=True)
    out.print()
    print_timeline(timeline)


def _told(callback: Callback | None) -> str:
    if callback is None:
        return "[green]delivered[/]"
    became = "pending" if callback.given_up_at is None else "[red]undelivered[/]"
    return became + _in_brackets(callback.reason)


def print_job(each: Job, *, as_json: bool) -> None:
    """One job as it stands."""
    if as_json:
        print_json(each.as_dict())
        return
    cancelling = "  to be cancelled" if each.cancelling else ""
    out.print(f"[bold]{each.id}[/]  {coloured(each.state)}  {each.stage}{cancelling}")
    facts = {
        "name": each.spec.name,
        "batch": each.spec.batch,
        "origin": each.origin,
        "recording": each.spec.audio_url,
        "voice": f"{each.persona_id} {each.voice_name or ''}".strip() if each.persona_id else None,
        "failure": f"{each.failure.code} ({each.failure.stage}): {each.failure.message}" if each.failure else None,
        "answer": each.answer,
        "credits": each.credits,
    }
    for fact, value in facts.items():
        if value is not None:
            out.print(f"  {fact:<10} {safe(value)}", soft_wrap=True)
    for clip in each.clips:
        _print_song(clip)
    if each.state is State.SUCCEEDED and each.is_incomplete:
        out.print(f"  {'missing':<10} not every song has its link yet; it is asked for: voicequeue retry {each.id}")
    if each.archive not in (None, InArchive.DONE):
        out.print(f"  {'archive':<10} {each.archive}, see: voicequeue archive")


def _print_song(clip: Clip) -> None:
    seconds = f"{clip.duration:.0f} s" if clip.duration else ""
    link = safe(clip.audio_url or (f"{clip.state}, no link yet" if clip.is_missing else clip.state))
    out.print(f"  {'song':<10} {safe(clip.title or clip.clip_id)}  {seconds}  {link}", soft_wrap=True)
    for file in (clip.archived_audio, clip.archived_image):
        if file is not None:
            out.print(f"  {'archived':<10} {safe(file.url)}  {file.size:,} bytes", soft_wrap=True)


def print_timeline(timeline: list[Step]) -> None:
    """Every move, and every charge."""
    table = plain_table("when", "state", "stage", "why")
    for step in timeline:
        task = f"upstream task {step.task_id}" if step.task_id else ""
        table.add_row(clock(step.at), coloured(step.state), step.stage, safe(" ".join((step.reason, task)).strip()))
    out.print(table)
    for charge in charges(timeline):
        then = coloured(charge.outcome)
        if charge.outcome is State.UNSURE and charge.task_id:
            then += f", and upstream has it as task {safe(charge.task_id)}"
        out.print(f"charge {charge.attempt}: {charge.stage} at {clock(charge.at)}, then {then}", soft_wrap=True)


def clock(at: float | None) -> str:
    """Unix seconds as a person here reads them."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_reasons(reasons: dict[str, int]) -> None:
    """How many rows were rejected for what, the most first."""
    for reason, count in sorted(reasons.items(), key=lambda each: -each[1]):
        out.print(f"  {count:>7,}  {safe(reason.replace('_', ' '))}")
