"""Records that a newer release has written: this release keeps what it does not know, and shows it as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    refuse_order,
)
from tests.store.newer_release import NEWER, NewerRelease, in_newer_state
from tests.store.outbox.callback_steps import claim_due, voice_with_callback
from tests.support.cli import run_in_process
from tests.support.jobs import voice, voice_with_song
from voicequeue import Clip, FailureCode, Filter, RejectedMessage, Scope, Stage, State, VoiceQueue
from voicequeue.auth.api_keys import generate_key
from voicequeue.domain import serialization
from voicequeue.domain.callback_secrets import StoredSecret
from voicequeue.domain.clip import merge_clips
from voicequeue.domain.gate import HoldReason
from voicequeue.domain.job import charges
from voicequeue.domain.recording_check import Recheck, parse_recheck, recheck_text
from voicequeue.domain.spec import NewerJob
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def newer(store: JobStore) -> NewerRelease:
    """Return the newer release on this test's store."""
    return NewerRelease(store)


def test_a_field_of_a_job_survives_its_life(store: JobStore, newer: NewerRelease) -> None:
    """From the backlog to its songs, each transition writes only the fields that it knows."""
    [job_id] = enqueue_jobs(store, voice_with_song(batch="b"))
    for name in (f"job:{job_id}", "batch:b", "namespace:"):
        newer.set(name, newer="kept")
    store.admit(NOW)
    for fields in ({"persona_id": "p", "voice_name": "Ana"}, {"clips": "[]", "settled": str(NOW)}):
        claim_admitted(store, job_id)
        job = accept_order(store, job_id)
        to = State.ADMITTED if job.stage is Stage.VOICE else State.SUCCEEDED
        apply_transition(store, job, to, to_stage=Stage.MUSIC, fields=fields)

    assert get_job(store, job_id).state is State.SUCCEEDED
    assert all(map(newer.has_kept, (f"job:{job_id}", "batch:b", "namespace:")))


@pytest.mark.parametrize("change", ["retry", "correct", "cancel"])
def test_a_field_of_a_job_survives_what_operators_do(
    store: JobStore, queue: VoiceQueue, newer: NewerRelease, change: str
) -> None:
    """Also one of its content, which a correction writes again."""
    job = job_in_state(store, State.QUEUED if change == "cancel" else State.ADMITTED, voice_with_song(batch="b"))
    if change != "cancel":
        fail_job(store, job, FailureCode.RECORDING_UNFIT)
    newer.set(f"job:{job.id}", newer="kept")
    newer.extend(f"job:{job.id}", "spec")
    content = newer.read(f"job:{job.id}", "spec")
    newer.set(f"job:{job.id}", spec=json.dumps({**content, "song": {**content["song"], **NEWER}, "priority": "urgent"}))
    match change:
        case "retry":
            queue.retry(job.id)
        case "correct":
            queue.retry(job.id, audio_url="https://recordings.example/better.wav")
        case _:
            queue.cancel(job.id)

    spec = newer.read(f"job:{job.id}", "spec")
    assert newer.has_kept(f"job:{job.id}")
    assert (spec["newer"], spec["song"]["newer"], spec["priority"]) == (NEWER["newer"], NEWER["newer"], "urgent")


def test_a_job_with_content_of_a_newer_release_is_read(store: JobStore, newer: NewerRelease) -> None:
    """Everything that this release knows of it is there."""
    [job_id] = enqueue_jobs(store, voice_with_song(batch="b", metadata={"a": "b"}))
    before = get_job(store, job_id).spec
    newer.extend(f"job:{job_id}", "spec")

    spec = get_job(store, job_id).spec

    assert isinstance(spec, NewerJob)
    assert (spec.audio_url, spec.batch, spec.metadata) == (before.audio_url, "b", {"a": "b"})
    assert spec.song is not None
    assert before.song is not None
    assert spec.song.title == before.song.title


def test_a_record_that_is_damaged_is_not_taken_for_a_newer_one() -> None:
    """A release adds fields, but does not change the type of one."""
    with pytest.raises(ValueError, match="audio_url"):
        serialization.parse_job("x", {"spec": '{"audio_url": 5, "newer": 1}', "version": "1"})


def test_a_field_of_a_song_survives_the_next_result() -> None:
    """A poll that finds more of a song, and a late one that finds less, keep what a newer release has stored."""
    [stored_clip] = serialization.parse_clips(json.dumps([{"clip_id": "1", "state": "working", **NEWER}]))
    later = Clip("1", "done", audio_url="https://cdn.example/1.mp3")

    texts = [
        serialization.clips_text(merge_clips(*pair)) for pair in (([stored_clip], [later]), ([later], [stored_clip]))
    ]

    assert [json.loads(text)[0]["newer"] for text in texts] == [NEWER["newer"]] * 2
    assert all(json.loads(text)[0]["state"] == "done" for text in texts)


@pytest.mark.parametrize(
    "parse",
    [
        serialization.parse_failure_report,
        serialization.parse_failure,
        serialization.parse_uncounted_spending,
        parse_recheck,
        serialization.parse_timeline_entry,
    ],
    ids=["failure report", "failure", "uncounted spending", "recheck", "timeline entry"],
)
def test_a_newer_field_of_any_part_is_no_error(parse: Callable[[str], Any]) -> None:
    """Every object that is stored as JSON may get more fields."""
    fields = {"at": 1.0, "message": "m", "code": "deadline", "stage": "voice", "state": "pending", "count": 1}
    spending = {"since": 1.0, "decrease": 4, "counted": 0, "checked_at": 1.0}

    assert parse(json.dumps({**fields, **spending, **NEWER})) is not None


def test_a_newer_field_of_a_rejected_message_is_no_error(store: JobStore, queue: VoiceQueue) -> None:
    """The list shows the message; messages are not written again."""
    store.rejected_messages.add(RejectedMessage(NOW, "m", "t", "bad", {}))
    key = store._space.key("rejected_messages")
    store._redis.lset(key, 0, json.dumps({**json.loads(str(store._redis.lindex(key, 0))), **NEWER}))

    assert [message.message_id for message in queue.rejected_messages()] == ["m"]


def test_the_memory_of_failed_checks_is_read_from_a_newer_record() -> None:
    """The known content stays as it is."""
    recheck = Recheck(1.0, 2.0, 3)

    assert parse_recheck(json.dumps({**json.loads(recheck_text(recheck)), **NEWER})) == recheck


# ── keys and secrets ──────────────────────────────────────────────────────────────────────────


def with_api_key(store: JobStore, newer: NewerRelease) -> None:
    """Store an API key that a newer release has given a field and a scope."""
    assert store.api_keys.write(generate_key("shop", [Scope.READ], "shop")[1], before="")
    newer.extend("api_keys", "shop")
    record = newer.read("api_keys", "shop")
    newer.set("api_keys", shop=json.dumps({**record, "scopes": ["read", "invoice"]}))


@pytest.mark.parametrize(
    "change",
    [
        lambda queue: queue.edit_api_key("shop", limits={"requests_per_s": 5}),
        lambda queue: queue.rotate_api_key("shop"),
        lambda queue: queue.revoke_api_key("shop"),
    ],
    ids=["edit", "rotate", "revoke"],
)
def test_a_field_and_a_scope_of_an_api_key_survive_its_changes(
    store: JobStore, queue: VoiceQueue, newer: NewerRelease, change: Callable[[VoiceQueue], object]
) -> None:
    """An older gateway that limits a key does not take a newer right away by accident."""
    with_api_key(store, newer)

    change(queue)

    record = newer.read("api_keys", "shop")
    assert (record["newer"], sorted(record["scopes"])) == (NEWER["newer"], ["invoice", "read"])


def test_new_scopes_of_an_api_key_are_all_of_its_scopes(
    store: JobStore, queue: VoiceQueue, newer: NewerRelease
) -> None:
    """An operator who names them restricts the key to them."""
    with_api_key(store, newer)

    queue.edit_api_key("shop", scopes=[Scope.ENQUEUE])

    assert newer.read("api_keys", "shop")["scopes"] == ["enqueue"]


def test_a_field_of_a_callback_secret_survives_a_rotation(store: JobStore, newer: NewerRelease) -> None:
    """The record can be replaced although this release does not know all of it."""
    assert store.callback_secrets.put("shop", StoredSecret("one", 0.0), None)
    newer.extend("callback_secrets", "shop")
    before = store.callback_secrets.get("shop")
    assert before is not None

    assert store.callback_secrets.put("shop", before.replaced("two", NOW, 60), before)

    assert newer.read("callback_secrets", "shop")["newer"] == NEWER["newer"]


def test_a_field_of_a_budget_and_of_a_session_survive(store: JobStore, queue: VoiceQueue, newer: NewerRelease) -> None:
    """Hashes are changed field by field."""
    queue.set_budget("namespace/shop", day=100)
    newer.set("budget:namespace/shop", newer="kept")
    newer.set("limits", newer="kept")

    queue.set_budget("namespace/shop", day=200)
    queue.set_limits(in_flight=10)

    assert newer.has_kept("budget:namespace/shop")
    assert newer.has_kept("limits")
    assert queue.status().in_flight_limit


# ── values ────────────────────────────────────────────────────────────────────────────────────


def test_values_of_a_newer_release_are_shown_as_they_are(
    store: JobStore, queue: VoiceQueue, newer: NewerRelease
) -> None:
    """A state, stage, failure, archive state, hold and event: no list or page fails."""
    job_id = in_newer_state(store, newer)

    job, timeline = queue.get(job_id), queue.timeline(job_id)

    assert job.failure is not None
    assert (job.state, job.stage, job.archive) == ("paused", "video", "cold")
    assert (job.failure.code, job.failure.stage) == ("eclipsed", "video")
    assert (job.as_dict()["state"], timeline[-1].state, timeline[-1].as_dict()["stage"]) == (
        "paused",
        "paused",
        "video",
    )
    assert [item.id for item in queue.jobs(batch="b")] == [job_id]
    assert [item.id for item in queue.search(Filter(batch="b")).items] == [job_id]
    assert "moon_phase" in [hold.reason for hold in queue.status().gate.holds]
    assert queue.batch("b").as_dict()
    assert queue.events("0-0")[-1].state == "paused"
    assert charges(timeline)


def test_an_operator_cannot_change_a_job_in_a_newer_state(
    store: JobStore, queue: VoiceQueue, newer: NewerRelease
) -> None:
    """What leads out of the state is for the release that knows it."""
    job_id = in_newer_state(store, newer)
    for change in (queue.cancel, queue.retry, queue.abandon, queue.resubmit):
        with pytest.raises(Exception, match="paused"):
            change(job_id)


def test_a_worker_leaves_a_job_in_a_newer_state_alone(store: JobStore, newer: NewerRelease) -> None:
    """Claims, leases and the audit skip it."""
    job_id = in_newer_state(store, newer)
    for index in ("in_flight", "start_by"):
        store._redis.zadd(store._space.key(index), {job_id: NOW - 1_000})

    assert store.claim_submit([job_id], Stage.MUSIC, "h", NOW, lease_s=60) == [None]
    assert store.claim_poll([job_id], NOW, lease_s=60) == []
    assert [stalled.state for stalled in store.lease_overdue(NOW, overdue_s=1)] in ([], ["paused"])
    assert store.lease_expired(NOW) == []
    assert audit(store._redis, store._space.prefix) is not None
    assert get_job(store, job_id).state == "paused"


@pytest.mark.parametrize(
    "command",
    [("job", "JOB"), ("job", "JOB", "--json"), ("jobs", "--batch", "b"), ("status",), ("export", "--batch", "b")],
)
def test_commands_show_values_of_a_newer_release(
    store: JobStore,
    newer: NewerRelease,
    valkey_url: str,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    """No command ends with an error."""
    monkeypatch.setenv("VOICEQUEUE_PREFIX", prefix)
    job_id = in_newer_state(store, newer)

    done = run_in_process(valkey_url, *(job_id if part == "JOB" else part for part in command))

    assert done.returncode == 0, done.stderr
    assert ("moon_phase" if command == ("status",) else "paused") in done.stdout


def test_a_callback_of_a_newer_kind_is_delivered(store: JobStore, newer: NewerRelease) -> None:
    """Its type and payload are those that were stored."""
    job_in_state(store, State.SUCCEEDED, voice_with_callback())
    key = next(iter(store._redis.scan_iter(f"{store._space.key('callback:')}*")))
    store._redis.hset(key, mapping={"type": "job.moved", "newer": "kept"})

    [claim] = claim_due(store.callbacks)

    assert json.loads(claim.body())["type"] == "job.moved"
    assert store.callbacks.schedule_retry(claim.id, NOW, NOW, "busy", is_attempted=True)
    assert store._redis.hget(key, "newer") == "kept"


def test_a_voice_is_ordered_by_the_release_that_knows_its_content(store: JobStore) -> None:
    """An older producer's job has no unknown content."""
    [job_id] = enqueue_jobs(store, voice())

    assert not isinstance(get_job(store, job_id).spec, NewerJob)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.flow_control.resume(NOW + 10),
        lambda store: store.flow_control.add_hold(HoldReason.UNAUTHORIZED, "again", NOW + 10),
    ],
    ids=["resume", "extend"],
)
def test_a_field_of_a_hold_survives_its_changes(
    store: JobStore, newer: NewerRelease, change: Callable[[JobStore], object]
) -> None:
    """Scripts read a hold, change what they know, and write it again."""
    store.flow_control.add_hold(HoldReason.UNAUTHORIZED, "wrong key", NOW)
    newer.extend("gate", "unauthorized")

    change(store)

    assert newer.read("gate", "unauthorized")["newer"]["text"] == "kept"


def test_a_field_of_a_refusal_survives_the_next_one(store: JobStore, newer: NewerRelease) -> None:
    """The memory of earlier refusals is written again with each."""
    [job_id] = enqueue_jobs(store, voice())
    store.admit(NOW)
    claim_admitted(store, job_id)
    refuse_order(store, job_id)
    newer.extend(f"job:{job_id}", "refused")
    store.flow_control.resume(NOW + 10)
    later = NOW + 1_000
    assert store.admit(later).by_stage
    claim_admitted(store, job_id, later)
    refuse_order(store, job_id, now=later)

    record = newer.read(f"job:{job_id}", "refused")
    assert (record["count"], record["newer"]["text"]) == (2, "kept")
