"""`jobs` and `job`: list jobs, and show one with its timeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.parsing import parse_pairs, parse_time
from voicequeue.cli.rejects import print_rejected
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    JobId,
    Since,
    StateOption,
    coloured,
    escape_untrusted,
    format_time,
    in_brackets,
    open_queue,
    option,
    out,
    print_json,
    print_json_list,
    print_note,
    style_of_state,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.search import Filter
from voicequeue.client.sorted_search import Sort
from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Job, TimelineEntry, charges
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import ArchiveState, FailureCode, State
from voicequeue.storage.callbacks import Callback

_COLUMNS = (
    Column("id"),
    Column("state", rank=1, style=style_of_state),
    Column("stage", rank=3),
    Column("name", rank=2, min_width=10),
    Column("batch", rank=5),
    Column("credits", rank=6, is_number=True),
    Column("persona", rank=7),
    Column("details", rank=4, min_width=12),
)

#: Jobs that are read at once.
_CHUNK = 500


def jobs(
    batch: BatchOption = None,
    state: StateOption = None,
    stage: Annotated[Stage | None, option("STAGE", help=f"Only jobs in this stage: {' or '.join(Stage)}.")] = None,
    code: Annotated[
        FailureCode | None, option("CODE", help=f"Only jobs that failed with this code: {', '.join(FailureCode)}.")
    ] = None,
    since: Since = None,
    until: Annotated[
        float | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Only jobs that last changed before then."),
    ] = None,
    source: Annotated[
        str | None, option("SOURCE", help="Only jobs from here: library, cli, http or message, or http:KEY.")
    ] = None,
    search: Annotated[
        str | None,
        option("TEXT", help="Only jobs with this id, key or metadata value, or a name or title that begins with it."),
    ] = None,
    metadata: Annotated[
        list[str] | None, option("NAME=VALUE", help="Only jobs with this metadata. Can be repeated.")
    ] = None,
    sort: Annotated[
        Sort | None,
        option("ORDER", help="By a time: created for jobs of a batch, changed for others; with - the latest first."),
    ] = None,
    limit: Limit = None,
    all: All = False,
    as_json: AsJson = False,
) -> None:
    """List jobs, filtered by batch, state, failure, time, source or text.

    Without --sort, jobs of a batch are listed in the order in which they were enqueued, jobs in a state by the latest
    to enter it.
    """
    count = limit_of(limit, is_all=all)
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter("must be later than --since", param_hint="--until")
    job_filter = Filter(
        state=state,
        stage=stage,
        batch=batch,
        code=code,
        since=since,
        until=until,
        source=source,
        metadata=parse_pairs("--metadata", metadata or []),
        text=search,
    )
    with open_queue() as queue:
        listing = Listing(_matching(queue, job_filter, min(_CHUNK, (count or _CHUNK) + 1), sort), count)
        if as_json:
            print_json_list(job.as_dict() for job in listing)
        else:
            print_table(_COLUMNS, map(_row, listing))
        if not listing.count:
            _print_none(queue, job_filter, as_json=as_json)
        listing.note_rest("job", lambda: _total(queue, job_filter))


def _print_none(queue: VoiceQueue, job_filter: Filter, *, as_json: bool) -> None:
    """Print that no job was listed. A text may be the id of a message that was rejected."""
    rejected = queue.rejected_messages(message_id=job_filter.text) if job_filter.text else []
    if as_json:
        for message in rejected:
            print_note(f"message {message.message_id} was rejected: {message.reason}; see voicequeue rejects")
        return
    if not rejected:
        out.print("no jobs" if job_filter == Filter() else "no job matches")
    for message in rejected:
        out.print("no job; this message was rejected:")
        print_rejected(message)


def _matching(queue: VoiceQueue, job_filter: Filter, page_size: int, sort: Sort | None) -> Iterator[Job]:
    cursor: str | None = None
    while True:
        page = queue.search(job_filter, limit=page_size, cursor=cursor, sort=sort)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _total(queue: VoiceQueue, job_filter: Filter) -> int | None:
    """Return how many jobs match, if counters know it."""
    if job_filter != Filter(state=job_filter.state, batch=job_filter.batch):
        return None
    states = queue.batch(job_filter.batch).states if job_filter.batch else queue.status().states
    return states[job_filter.state] if job_filter.state else sum(states.values())


def _row(job: Job) -> tuple[str, ...]:
    name = job.spec.name or job.voice_name or (job.spec.song and job.spec.song.title) or ""
    result = f"{job.failure.code}: {job.failure.message}" if job.failure else ""
    result = "cancelling" if job.is_cancelling else result
    batch = job.qualified_batch if job.spec.batch else ""
    return (job.id, job.state, job.stage, name, batch, f"{job.credits:,}", job.persona_id or "", result)


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
        out.print(f"  {'held':<10} {escape_untrusted(hold.detail)}")
    if job.callback_id:
        out.print(f"  {'callback':<10} {job.callback_id} {_delivery(callback)}")
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
            out.print(f"  {label:<10} {escape_untrusted(value)}")
    for clip in job.clips:
        _print_song(clip)
    if job.state is State.SUCCEEDED and job.is_incomplete:
        out.print(f"  {'missing':<10} the link of a song; it is polled for, or run: voicequeue retry {job.id}")
    if job.archive not in (None, ArchiveState.DONE):
        out.print(f"  {'archive':<10} {job.archive}, see: voicequeue archive")


def _print_song(clip: Clip) -> None:
    duration = f"{clip.duration:.0f} s" if clip.duration else ""
    link = escape_untrusted(clip.audio_url or (f"{clip.state}, no link yet" if clip.is_missing else clip.state))
    out.print(f"  {'song':<10} {escape_untrusted(clip.title or clip.clip_id)}  {duration}  {link}")
    for file in (clip.archived_audio, clip.archived_image):
        if file is not None:
            out.print(f"  {'archived':<10} {escape_untrusted(file.url)}  {file.size:,} bytes")


_TIMELINE = (
    Column("time"),
    Column("state", style=style_of_state),
    Column("stage", rank=1),
    Column("reason"),
)


def _timeline_row(entry: TimelineEntry) -> tuple[str, ...]:
    task = f"upstream task {entry.task_id}" if entry.task_id else ""
    return (format_time(entry.at), entry.state, entry.stage, f"{entry.reason} {task}".strip())


def print_timeline(timeline: list[TimelineEntry]) -> None:
    """Print every transition and every charge."""
    print_table(_TIMELINE, map(_timeline_row, timeline))
    for charge in charges(timeline):
        outcome = coloured(charge.outcome)
        if charge.outcome is State.UNSURE and charge.task_id:
            outcome += f", upstream has it as task {escape_untrusted(charge.task_id)}"
        out.print(f"charge {charge.attempt}: {charge.stage} at {format_time(charge.at)}, then {outcome}")
