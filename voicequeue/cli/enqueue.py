"""`enqueue`: add one job."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from voicequeue.cli.cost import describe_cost
from voicequeue.cli.ingest.budget import Budget
from voicequeue.cli.jobs import print_job
from voicequeue.cli.parsing import parse_pairs
from voicequeue.cli.terminal import (
    AsJson,
    Reuse,
    StartWithin,
    Timeout,
    batch_option,
    flag,
    open_queue,
    option,
    out,
    print_json,
    print_note,
    refuse,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.results import EnqueuedJob
from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import DEFAULT
from voicequeue.domain.song import Song
from voicequeue.domain.spec import Priority, VoiceJob, parse_spec
from voicequeue.domain.states import State
from voicequeue.errors import InvalidJobError, Problem
from voicequeue.texts import describe_json_error


def enqueue(
    audio_url: Annotated[str | None, option("URL", help="A public MP3 or WAV of one clear speaker.")] = None,
    persona_id: Annotated[str | None, option("ID", help="Use this existing voice instead of --audio-url.")] = None,
    song: Annotated[
        str | None, option("JSON", help=f"The song, with the fields {', '.join(Song.model_fields)}.")
    ] = None,
    name: Annotated[str | None, option("TEXT", help="Name the voice.")] = None,
    voice: Annotated[
        str | None, option("NAME", help="Share the voice with jobs of the batch that name it too.")
    ] = None,
    reuse: Reuse = None,
    batch: Annotated[str | None, batch_option("Add the job to this batch.")] = None,
    priority: Annotated[
        Priority, option("PRIORITY", help=f"Priority in the backlog: {', '.join(Priority)}.")
    ] = Priority.NORMAL,
    key: Annotated[str | None, option("TEXT", help="Idempotency key: the same key is the same job.")] = None,
    metadata: Annotated[
        list[str] | None, option("NAME=VALUE", help="Attach data of your own. Can be repeated.")
    ] = None,
    callback_url: Annotated[
        str | None, option("URL", help="Send a callback here when the job has settled or is unsure.")
    ] = None,
    max_credits: Annotated[int | None, option("N", help="Reject the job if it costs more than N credits.")] = None,
    start_within: StartWithin = None,
    wait: Annotated[bool, flag("--wait", help="Wait until the job has settled.")] = False,
    timeout: Timeout = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Print whether it is new, and its cost; enqueue nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add one job to the queue, and print what it costs.

    The same key and content is the same job: it is added and paid once.
    """
    if not wait:
        refuse("without --wait", timeout=timeout)
    if dry_run:
        refuse("with --dry-run", wait=wait)
    fields = {
        "audio_url": audio_url,
        "persona_id": persona_id,
        "song": _json_value("song", song),
        "name": name,
        "voice": voice,
        "reuse": reuse,
        "batch": batch,
        "priority": priority,
        "key": key,
        "metadata": parse_pairs("--metadata", metadata or []),
        "callback_url": callback_url,
        "max_credits": max_credits,
        "start_within_s": start_within,
    }
    spec = parse_spec(fields)
    with open_queue(namespace=DEFAULT) as queue:
        if dry_run:
            _preview(queue, spec, as_json=as_json)
            return
        budget = None if as_json else Budget.of(queue, batch or "")  # before the job counts
        enqueued = queue.enqueue(spec)
        job = _wait(queue, enqueued, timeout, as_json=as_json) if wait else enqueued
        _print(queue, job, enqueued, budget)
    raise typer.Exit(int(wait and job.state is not State.SUCCEEDED))


def _preview(queue: VoiceQueue, spec: VoiceJob, *, as_json: bool) -> None:
    [preview] = queue.preview([spec])
    if preview.error is not None:
        raise preview.error
    budget = Budget.of(queue, spec.batch or "")
    if as_json:
        account = budget.status.account
        affordable = {"balance": account.balance, "is_affordable": budget.suffices(preview.credits)}
        print_json({"is_new": preview.is_new, "credits": preview.credits, **affordable})
    elif preview.is_new:
        cost = describe_cost(spec, preview.credits)
        out.print(f"dry run, nothing was enqueued: a new job for {cost}; {budget.explanation(preview.credits)}")
    else:
        out.print("dry run, nothing was enqueued: the job exists, and costs nothing more")


def _wait(queue: VoiceQueue, enqueued: EnqueuedJob, timeout_s: float | None, *, as_json: bool) -> Job:
    """Return the job when it has settled. Prints it as it is, and raises TimeoutError, when the time is over."""
    print_note(f"job {enqueued.id} is in the queue; waiting until it has settled (Ctrl-C leaves it there)")
    try:
        return queue.wait(enqueued.id, timeout=timeout_s)
    except TimeoutError:
        print_job(queue.get(enqueued.id), as_json=as_json)
        raise


def _print(queue: VoiceQueue, job: Job, enqueued: EnqueuedJob, budget: Budget | None) -> None:
    """Print a job that was enqueued, and what it costs; without `budget`, as JSON."""
    if budget is None:
        added = {"is_new": enqueued.is_new, "estimated_credits": enqueued.price, "position": queue.position(job)}
        print_json({**job.as_dict(), **added, "further_job_ids": list(enqueued.further_job_ids)})
        return
    print_job(job, as_json=False)
    if not enqueued.is_new:
        out.print(f"  {'cost':<10} nothing more: this job existed")
    else:
        cost = describe_cost(enqueued.spec, enqueued.price)
        out.print(f"  {'cost':<10} up to {cost}; {budget.explanation(enqueued.price)}")


def _json_value(field: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJobError([Problem(field, f"is not readable as JSON: {describe_json_error(error)}")]) from None
