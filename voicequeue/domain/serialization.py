"""Conversion between Redis records (hashes of strings) and domain objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import TypeAdapter

from voicequeue.domain.balance import Balance, UncountedSpending
from voicequeue.domain.clip import ArchivedFile, Clip, unknown_fields, with_unknown
from voicequeue.domain.gate import Refusal
from voicequeue.domain.job import Event, Failure, FailureReport, Job, TimelineEntry, Transition, message_ids_of_key
from voicequeue.domain.namespaces import namespace_of, split
from voicequeue.domain.newer_records import known_fields, stored
from voicequeue.domain.spec import parse_stored_spec
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import ArchiveState, ClipPart, FailureCode, State
from voicequeue.domain.status import Batch, RefusedJob
from voicequeue.domain.stop_loss import parse_stop

_ANY = TypeAdapter[Any](Any)

#: Fields of a clip that come from upstream.
UPSTREAM_CLIP_FIELDS = tuple(field.name for field in fields(Clip) if not field.name.startswith("archived_"))


def json_text(value: Any) -> str:
    """Return a value as compact JSON. Pydantic's encoder needs a quarter of the time of Python's."""
    try:
        return _ANY.dump_json(value).decode()
    except ValueError:  # it encodes neither lone surrogates nor what is nested very deeply
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_job(job_id: str, record: Mapping[str, str]) -> Job:
    """Return the job of a record."""
    spec = parse_stored_spec(record["spec"])
    settled, created = record.get("settled"), float(record["created"])
    return Job(
        id=job_id,
        version=int(record["version"]),
        state=stored(State, record["state"]),
        stage=stored(Stage, record["stage"]),
        spec=spec,
        created_at=created,
        updated_at=float(record.get("updated", created)),
        settled_at=float(settled) if settled else None,
        attempt=int(record.get("attempt", 0)),
        credits=int(record.get("credits", 0)),
        persona_id=record.get("persona_id", spec.persona_id),
        voice_name=record.get("voice_name"),
        clips=tuple(_archived(clip, record) for clip in parse_clips(record.get("clips"))),
        failure=parse_failure(record.get("failure")),
        shared_voice=record.get("shared_voice"),
        task_ids={stage: record[task_field(stage)] for stage in Stage if task_field(stage) in record},
        callback_id=record.get("callback"),
        archive=stored(ArchiveState, record["archive"]) if "archive" in record else None,
        unreadable_response=record.get("upstream_response"),
        charged_task_ids=(orders := _orders(record.get("orders"))),
        lost_stages={
            attempt: stage for attempt, stage in _lost(record.get("lost_orders")).items() if attempt not in orders
        },
        is_cancelling="cancelling" in record,
        source=record.get("source"),
        source_row=int(row) if (row := record.get("source_row")) else None,
        message_ids=_message_ids(record.get("message_ids"), spec.key),
        namespace=namespace_of(record.get("batch")),
    )


def _message_ids(text: str | None, key: str | None) -> tuple[str, ...]:
    """Return the ids of the messages that enqueued a job; that of the first one may be in the job's key only."""
    if text:
        return tuple(json.loads(text))
    return message_ids_of_key(key)


def _orders(text: str | None) -> dict[int, str]:
    """Return upstream's task ids by attempt, of all charged orders, oldest first."""
    return dict(sorted((int(attempt), task) for attempt, task in json.loads(text).items())) if text else {}


def _lost(text: str | None) -> dict[int, Stage]:
    return {int(attempt): stored(Stage, stage) for attempt, stage in json.loads(text).items()} if text else {}


def lost_text(lost: Mapping[int, Stage]) -> str:
    """Return lost orders as a record field."""
    return json.dumps(lost)


def parse_failure_report(text: str | None) -> FailureReport | None:
    """Return the failure that upstream reported, from a record field."""
    return FailureReport(**known_fields(FailureReport, json.loads(text))) if text else None


def failure_report_text(report: FailureReport) -> str:
    """Return a reported failure as a record field."""
    return json_text(asdict(report))


def task_field(stage: Stage) -> str:
    """Return the name of the record field with the task id of a stage."""
    return f"{stage}.task"


def parse_clips(text: str | None) -> tuple[Clip, ...]:
    """Return the clips in a record field."""
    return tuple(map(_clip, json.loads(text) if text else []))


def _clip(line: Mapping[str, Any]) -> Clip:
    unknown = {name: value for name, value in line.items() if name not in UPSTREAM_CLIP_FIELDS}
    return with_unknown(Clip(**{name: line[name] for name in UPSTREAM_CLIP_FIELDS if name in line}), unknown)


def clips_text(songs: tuple[Clip, ...]) -> str:
    """Return clips as a record field; archived files have fields of their own."""
    return json_text([_clip_line(clip) for clip in songs])


def _clip_line(clip: Clip) -> dict[str, Any]:
    stated = {name: value for name in UPSTREAM_CLIP_FIELDS if (value := getattr(clip, name)) is not None}
    return {**unknown_fields(clip), **stated}


def archived_field(part: ClipPart, clip_id: str) -> str:
    """Return the name of the record field with the archived file of a part of a clip."""
    return f"archived.{part}.{clip_id}"


def _archived(clip: Clip, record: Mapping[str, str]) -> Clip:
    audio, image = (_file(record.get(archived_field(part, clip.clip_id))) for part in (ClipPart.AUDIO, ClipPart.IMAGE))
    return replace(clip, archived_audio=audio, archived_image=image) if audio or image else clip


def _file(text: str | None) -> ArchivedFile | None:
    return ArchivedFile(**known_fields(ArchivedFile, json.loads(text))) if text else None


def parse_failure(text: str | None) -> Failure | None:
    """Return the failure in a record field."""
    if not text:
        return None
    parts = json.loads(text)
    return Failure(stored(FailureCode, parts["code"]), stored(Stage, parts["stage"]), parts["message"])


def failure_text(cause: Failure) -> str:
    """Return a failure as a record field."""
    return json_text(asdict(cause))


def parse_batch(qualified: str, record: Mapping[str, str], created_at: float | None = None) -> Batch:
    """Return the batch of a record; its name there includes its namespace."""
    namespace, name = split(qualified)
    limits = {limit: int(record[limit]) for limit in ("max_credits", "max_in_flight", "stop_min") if limit in record}
    stop = parse_stop(record.get("stopped"))
    is_paused = stop is not None or record.get("paused", "0") == "1"
    amounts = ("credits", "reserved", "lost.credits", "queued_credits")
    spent, reserved, lost, queued = (int(record.get(field, 0)) for field in amounts)
    return Batch(
        name,
        parse_states(record),
        spent,
        is_paused=is_paused,
        reserved_credits=reserved + lost,
        queued_credits=max(0, queued),
        failures=parse_failures(record),
        stop_after=float(record["stop_after"]) if "stop_after" in record else None,
        stop=stop,
        namespace=namespace,
        created_at=created_at,
        **limits,
    )


def parse_failures(record: Mapping[str, str]) -> dict[str, int]:
    """Return the number of failed jobs by code, from the counters of the queue or of a batch."""
    by_code = {name.removeprefix("failed."): int(n) for name, n in record.items() if name.startswith("failed.")}
    return {code: count for code, count in by_code.items() if count > 0}


def parse_states(record: Mapping[str, str]) -> dict[State, int]:
    """Return the number of jobs of a batch in each state."""
    return {state: int(record.get(state, 0)) for state in State}


def parse_balance(text: str) -> Balance:
    """Return an account balance."""
    line = json.loads(text)
    reported = Balance(float(line["requested_at"]), float(line["at"]), line["credits"], line["spent"], line["quiet"])
    return replace(
        reported, **{name: line.get(name, 0) for name in ("charging", "unsure", "unsettled", "voices", "songs")}
    )


def uncounted_spending_text(spending: UncountedSpending) -> str:
    """Return unexplained spending as a record field."""
    return json.dumps(asdict(spending))


def parse_uncounted_spending(text: str | None) -> UncountedSpending | None:
    """Return the unexplained spending in a record field."""
    if not text:
        return None
    line = known_fields(UncountedSpending, json.loads(text))
    return UncountedSpending(**{**line, "stage": stored(Stage, line["stage"]) if line["stage"] else None})


def parse_event(event_id: str, fields: Mapping[str, str]) -> Event:
    """Return one entry of the event stream."""
    stage = stored(Stage, fields["stage"]) if fields["stage"] else None
    took = float(fields["took"]) if fields.get("took") else None
    namespace, batch = split(fields["batch"])
    state, reason = stored(State, fields["state"]), fields["reason"]
    return Event(event_id, fields["id"], batch or None, state, stage, reason, took, namespace)


def parse_timeline_entry(text: str) -> TimelineEntry:
    """Return one entry of a timeline."""
    line = json.loads(text)
    return TimelineEntry(
        at=float(line["at"]),
        state=stored(State, line["state"]),
        stage=stored(Stage, line["stage"]),
        reason=line.get("reason", ""),
        attempt=line.get("attempt", 0),
        task_id=line.get("task_id"),
    )


def _refusal(move: Transition, refusal: Refusal) -> dict[str, Any]:
    """Return a refused order as `lib/refusals.lua` takes it; without `max_hold_s` only an operator opens the gate."""
    line: dict[str, Any] = {
        "reason": refusal.reason,
        "message": refusal.message,
        "detail": f"{refusal.message} (job {move.job_id})",
        "failure": failure_text(Failure(FailureCode.REFUSED, move.stage, refusal.message)),
        "hold_s": refusal.hold_s,
        "max_rest_s": refusal.max_rest_s,
        "wait_s": refusal.wait_s,
        "attempts": refusal.max_attempts,
    }
    return line if refusal.max_hold_s is None else {**line, "max_hold_s": refusal.max_hold_s}


def parse_refused_job(job_id: str, until: float, record: Sequence[str | None]) -> RefusedJob | None:
    """Return the job if its `refused` and `stage` fields say that upstream refuses it while it accepts others."""
    text, stage = record
    refusals: dict[str, Any] = json.loads(text) if text else {"own_count": 0}
    if not refusals["own_count"] or stage is None:
        return None
    return RefusedJob(job_id, stored(Stage, stage), refusals["message"], refusals["count"], until)


def transition_arguments(move: Transition, *, archive: bool = False) -> dict[str, Any]:
    """Return a transition as `apply_transitions.lua` takes it.

    Absent values are left out, as Lua's null is not nil. With `archive`, finished songs are to be archived.
    """
    stage = move.to_stage or move.stage
    line: dict[str, Any] = {
        "id": move.job_id,
        "version": move.version,
        "from": [move.state, move.stage],
        "holder": move.holder,
        "to": move.to_state,
        "stage": stage,
        "credits": move.credits,
        "attempt": move.attempt,
        "unsettled": move.released_credits or None,
        "set": {name: value for name, value in move.fields.items() if value is not None},
        "unset": [name for name, value in move.fields.items() if value is None],
        "task_id": move.fields.get(task_field(move.stage)),
        "due": move.due,
        "reason": move.reason or None,
        "rests_until": move.rests_until,
        "archive": True
        if archive and any(clip.is_finished for clip in parse_clips(move.fields.get("clips")))
        else None,
        "refused": _refusal(move, move.refused) if move.refused else None,
    }
    return {name: value for name, value in line.items() if value is not None}
