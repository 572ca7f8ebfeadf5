"""Between a job's record as it lies in Redis (a hash of strings) and a `Job`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from voicequeue.domain.balance import Balance, Drift
from voicequeue.domain.clip import ArchivedFile, Clip
from voicequeue.domain.gate import Refusal
from voicequeue.domain.job import Code, Doubt, Event, Failure, InArchive, Job, Move, Part, State, Step
from voicequeue.domain.spec import stored
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import Batch, RefusedJob

#: What of a clip is upstream's.
OF_UPSTREAM = tuple(each.name for each in fields(Clip) if not each.name.startswith("archived_"))


def job(job_id: str, record: Mapping[str, str]) -> Job:
    """The job that a record's fields describe."""
    spec = stored(record["spec"])
    settled, created = record.get("settled"), float(record["created"])
    return Job(
        id=job_id,
        version=int(record["v"]),
        state=State(record["state"]),
        stage=Stage(record["stage"]),
        spec=spec,
        created_at=created,
        updated_at=float(record.get("updated", created)),
        settled_at=float(settled) if settled else None,
        attempt=int(record.get("attempt", 0)),
        credits=int(record.get("credits", 0)),
        persona_id=record.get("persona_id", spec.persona_id),
        voice_name=record.get("voice_name"),
        clips=tuple(_archived(clip, record) for clip in clips(record.get("clips"))),
        failure=failure(record.get("failure")),
        shares=record.get("shares"),
        task_ids={stage: record[task_field(stage)] for stage in Stage if task_field(stage) in record},
        callback_id=record.get("callback"),
        archive=InArchive(record["archive"]) if "archive" in record else None,
        answer=record.get("answer"),
        orders=(orders := _orders(record.get("orders"))),
        lost={attempt: stage for attempt, stage in _lost(record.get("lost")).items() if attempt not in orders},
        cancelling="cancelling" in record,
        origin=record.get("origin"),
    )


def _orders(text: str | None) -> dict[int, str]:
    """Return upstream's tasks by attempt, of all orders that were charged, oldest first."""
    return dict(sorted((int(attempt), task) for attempt, task in json.loads(text).items())) if text else {}


def _lost(text: str | None) -> dict[int, Stage]:
    return {int(attempt): Stage(stage) for attempt, stage in json.loads(text).items()} if text else {}


def lost_text(lost: Mapping[int, Stage]) -> str:
    """Return lost orders as a record's field."""
    return json.dumps(lost)


def doubt(text: str | None) -> Doubt | None:
    """Return the failure that upstream reported, from a record's field."""
    return Doubt(**json.loads(text)) if text else None


def doubt_text(found: Doubt) -> str:
    """Return it as a record's field."""
    return json.dumps(asdict(found), ensure_ascii=False, separators=(",", ":"))


def task_field(stage: Stage) -> str:
    """Where a stage's upstream task id stands in the record."""
    return f"{stage}.task"


def clips(text: str | None) -> tuple[Clip, ...]:
    """The clips in a record's field; of a release with other fields, those that this one knows."""
    lines = json.loads(text) if text else []
    return tuple(Clip(**{name: clip[name] for name in OF_UPSTREAM if name in clip}) for clip in lines)


def clips_text(found: tuple[Clip, ...]) -> str:
    """The clips as a record's field; what was archived of them has fields of its own."""
    lines = [{name: value for name in OF_UPSTREAM if (value := getattr(clip, name)) is not None} for clip in found]
    return json.dumps(lines, ensure_ascii=False, separators=(",", ":"))


def archived_field(part: Part, clip_id: str) -> str:
    """Where in the record it stands that a part of a clip was archived."""
    return f"archived.{part}.{clip_id}"


def _archived(clip: Clip, record: Mapping[str, str]) -> Clip:
    audio, image = (_file(record.get(archived_field(part, clip.clip_id))) for part in (Part.AUDIO, Part.IMAGE))
    return replace(clip, archived_audio=audio, archived_image=image) if audio or image else clip


def _file(text: str | None) -> ArchivedFile | None:
    return ArchivedFile(**json.loads(text)) if text else None


def failure(text: str | None) -> Failure | None:
    """The failure in a record's field."""
    if not text:
        return None
    parts = json.loads(text)
    return Failure(Code(parts["code"]), Stage(parts["stage"]), parts["message"])


def failure_text(found: Failure) -> str:
    """The failure as a record's field."""
    return json.dumps(asdict(found), ensure_ascii=False, separators=(",", ":"))


def batch(name: str, record: Mapping[str, str]) -> Batch:
    """The batch that a record's fields describe."""
    limits = {limit: int(record[limit]) for limit in ("max_credits", "max_in_flight") if limit in record}
    paused = record.get("paused", "0") == "1"
    spent, promised = int(record.get("credits", 0)), int(record.get("committed", 0))
    return Batch(name, states(record), spent, paused=paused, committed=promised, **limits)


def states(record: Mapping[str, str]) -> dict[State, int]:
    """How many jobs of a batch stand in each state."""
    return {state: int(record.get(state, 0)) for state in State}


def balance(text: str) -> Balance:
    """One look at the account."""
    line = json.loads(text)
    seen = Balance(float(line["asked"]), float(line["at"]), line["credits"], line["spent"], line["quiet"])
    return replace(seen, **{name: line.get(name, 0) for name in ("charging", "unsure", "unsettled", "voices", "songs")})


def drift_text(found: Drift) -> str:
    """What left the account uncounted, as a field."""
    return json.dumps(asdict(found))


def drift(text: str | None) -> Drift | None:
    """What such a field says."""
    if not text:
        return None
    line = json.loads(text)
    return Drift(**{**line, "stage": Stage(line["stage"]) if line["stage"] else None})


def event(event_id: str, fields: Mapping[str, str]) -> Event:
    """One entry of the stream."""
    stage = Stage(fields["stage"]) if fields["stage"] else None
    took = float(fields["took"]) if fields.get("took") else None
    return Event(event_id, fields["id"], fields["batch"] or None, State(fields["state"]), stage, fields["reason"], took)


def step(text: str) -> Step:
    """One line of a timeline."""
    line = json.loads(text)
    return Step(
        at=float(line["at"]),
        state=State(line["state"]),
        stage=Stage(line["stage"]),
        reason=line.get("reason", ""),
        attempt=line.get("attempt", 0),
        task_id=line.get("task_id"),
    )


def _refusal(move: Move, refusal: Refusal) -> dict[str, Any]:
    """A refused order as `lib/refusals.lua` takes it; without `max_hold_s` nothing but an operator opens the gate."""
    line: dict[str, Any] = {
        "reason": refusal.reason,
        "message": refusal.message,
        "detail": f"{refusal.message} (job {move.job_id})",
        "failure": failure_text(Failure(Code.REFUSED, move.stage, refusal.message)),
        "hold_s": refusal.pause_s,
        "max_rest_s": refusal.rest_s,
        "wait_s": refusal.wait_s,
        "attempts": refusal.tries,
    }
    return line if refusal.most_s is None else {**line, "max_hold_s": refusal.most_s}


def refused(job_id: str, until: float, record: Sequence[str | None]) -> RefusedJob | None:
    """The job, if its `refused` and `stage` say that upstream refuses it while it takes others."""
    text, stage = record
    known: dict[str, Any] = json.loads(text) if text else {"own_count": 0}
    if not known["own_count"] or stage is None:
        return None
    return RefusedJob(job_id, Stage(stage), known["message"], known["count"], until)


def move_text(move: Move, *, archive: bool = False) -> dict[str, Any]:
    """A move as `apply_transitions.lua` takes it; what is absent stays out, for Lua's null is not nil.

    `archive`: if it brings songs that are there, they are to be archived.
    """
    stage = move.to_stage or move.stage
    line: dict[str, Any] = {
        "id": move.job_id,
        "v": move.version,
        "to": move.to,
        "stage": stage,
        "credits": move.credits,
        "attempt": move.attempt,
        "unsettled": move.unsettled or None,
        "set": {name: value for name, value in move.fields.items() if value is not None},
        "unset": [name for name, value in move.fields.items() if value is None],
        "task_id": move.fields.get(task_field(move.stage)),
        "due": move.due,
        "reason": move.reason or None,
        "archive": True if archive and any(clip.is_finished for clip in clips(move.fields.get("clips"))) else None,
        "refused": _refusal(move, move.refused) if move.refused else None,
    }
    return {name: value for name, value in line.items() if value is not None}
