"""`jobs` and `job`: list jobs, and show one with its timeline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

from voicequeue.cli.rejects import print_rejected
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    JobId,
    StateOption,
    coloured,
    escape_untrusted,
    format_time,
    in_brackets,
    open_queue,
    option,
    out,
    plain_table,
    print_json,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.search import Filter
from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Job, TimelineEntry, charges
from voicequeue.domain.states import ArchiveState, State
from voicequeue.storage.callbacks import Callback


def jobs(
    batch: BatchOption = None,
    state: StateOption = None,
    search: Annotated[
        str | None,
        option("TEXT", help="Only jobs with this id, key or metadata value, or a name or title that begins with it."),
    ] = None,
    limit: Annotated[int, option("N", min=1, help="List at most this many jobs.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, filtered by batch, state or text.

    Jobs of a batch are listed in the order in which they were enqueued, jobs in a state by the latest to enter it.
    """
    with open_queue() as source:
        listed = list(islice(_matching(source, Filter(state=state, batch=batch, text=search)), limit))
        rejected = source.rejected_messages(message_id=search) if search and not listed else []
    if as_json:
        print_json([job.as_dict() for job in listed])
        return
    table = plain_table("id", "state", "stage", "name", "persona", "credits", "details")
    for job in listed:
        table.add_row(*_row(job))
    out.print(table)
    for message in rejected:
        out.print("no job; this message was rejected:")
        print_rejected(message)


def _matching(source: VoiceQueue, job_filter: Filter) -> Iterator[Job]:
    if job_filter.text is None:
        yield from source.jobs(state=job_filter.state, batch=job_filter.batch)
        return
    cursor: str | None = None
    while True:
        page = source.search(job_filter, cursor=cursor)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _row(job: Job) -> tuple[str, ...]:
    name = job.spec.name or job.voice_name or (job.spec.song and job.spec.song.title) or ""
    result = f"{job.failure.code}: {job.failure.message}" if job.failure else ""
    result = "cancelling" if job.is_cancelling else result
    persona = job.persona_id or ""
    return (
        job.id,
        coloured(job.state),
        job.stage,
        escape_untrusted(name),
        escape_untrusted(persona),
        str(job.credits),
        escape_untrusted(result),
    )


def job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job with its timeline, charges and songs."""
    with open_queue() as source:
        job = source.get(job_id)
        timeline = source.timeline(job_id)
        holds = source.job_holds(job_id)
        callback = source.callback(job.callback_id) if job.callback_id else None
    if as_json:
        delivery = {"id": job.callback_id, "delivered": callback is None} if job.callback_id else None
        entries = [entry.as_dict() for entry in timeline]
        print_json(
            {
                **job.as_dict(),
                "holds": [hold.as_dict() for hold in holds],
                "upstream_response": job.unreadable_response,
                "callback": delivery,
                "timeline": entries,
            }
        )
        return
    print_job(job, as_json=False)
    for hold in holds:
        out.print(f"  {'held':<10} {escape_untrusted(hold.detail)}", soft_wrap=True)
    if job.callback_id:
        out.print(f"  {'callback':<10} {job.callback_id} {_delivery(callback)}", soft_wrap=True)
    out.print()
    print_timeline(timeline)


def _delivery(callback: Callback | None) -> str:
    if callback is None:
        return "[green]delivered[/]"
    status = "pending" if callback.undelivered_at is None else "[red]undelivered[/]"
    return status + in_brackets(callback.last_error)


def print_job(job: Job, *, as_json: bool) -> None:
    """Print a job, without its timeline."""
    if as_json:
        print_json(job.as_dict())
        return
    cancelling = "  cancelling" if job.is_cancelling else ""
    out.print(f"[bold]{job.id}[/]  {coloured(job.state)}  {job.stage}{cancelling}")
    details = {
        "name": job.spec.name,
        "namespace": job.namespace or None,
        "batch": job.spec.batch,
        "source": job.source,
        "row": job.source_row,
        "message": " ".join(job.message_ids) or None,
        "recording": job.spec.audio_url,
        "voice": f"{job.persona_id} {job.voice_name or ''}".strip() if job.persona_id else None,
        "failure": f"{job.failure.code} ({job.failure.stage}): {job.failure.message}" if job.failure else None,
        "upstream_response": job.unreadable_response,
        "credits": job.credits,
    }
    for label, value in details.items():
        if value is not None:
            out.print(f"  {label:<10} {escape_untrusted(value)}", soft_wrap=True)
    for clip in job.clips:
        _print_song(clip)
    if job.state is State.SUCCEEDED and job.is_incomplete:
        out.print(f"  {'missing':<10} the link of a song; it is polled for, or run: voicequeue retry {job.id}")
    if job.archive not in (None, ArchiveState.DONE):
        out.print(f"  {'archive':<10} {job.archive}, see: voicequeue archive")


def _print_song(clip: Clip) -> None:
    duration = f"{clip.duration:.0f} s" if clip.duration else ""
    link = escape_untrusted(clip.audio_url or (f"{clip.state}, no link yet" if clip.is_missing else clip.state))
    out.print(f"  {'song':<10} {escape_untrusted(clip.title or clip.clip_id)}  {duration}  {link}", soft_wrap=True)
    for file in (clip.archived_audio, clip.archived_image):
        if file is not None:
            out.print(f"  {'archived':<10} {escape_untrusted(file.url)}  {file.size:,} bytes", soft_wrap=True)


def print_timeline(timeline: list[TimelineEntry]) -> None:
    """Print every transition and every charge."""
    table = plain_table("time", "state", "stage", "reason")
    for entry in timeline:
        task = f"upstream task {entry.task_id}" if entry.task_id else ""
        table.add_row(
            format_time(entry.at),
            coloured(entry.state),
            entry.stage,
            escape_untrusted(" ".join((entry.reason, task)).strip()),
        )
    out.print(table)
    for charge in charges(timeline):
        outcome = coloured(charge.outcome)
        if charge.outcome is State.UNSURE and charge.task_id:
            outcome += f", upstream has it as task {escape_untrusted(charge.task_id)}"
        out.print(
            f"charge {charge.attempt}: {charge.stage} at {format_time(charge.at)}, then {outcome}", soft_wrap=True
        )
