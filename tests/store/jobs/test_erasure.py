"""Erasure: nothing of a person stays in Redis, nothing of others changes, and the same order is not sent again."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    REACHABLE,
    apply_transition,
    assert_consistent,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    job_with_song,
)
from tests.store.outbox.callback_steps import claim_due
from tests.support.jobs import SONG, voice
from voicequeue import FailureCode, RejectedMessage, State, VoiceJob, VoiceQueue
from voicequeue.client.queue import in_namespace
from voicequeue.diagnostics.check_result import Level
from voicequeue.diagnostics.checkup import inspect, results
from voicequeue.domain import transitions
from voicequeue.errors import ErasedError, InvalidJobError, PlanNotFoundError
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.erasure import ERASURE_MAX_S, REDACTED
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.rejected_messages import JOB_MAX

#: In every text of the person.
MARK = "Zoë-🎤-zoe-obrien-O'Brien%2F[42]"
WORD = "zoe-obrien"
PERSON = {"subject": MARK}

#: Key and batch of two jobs, the second in a batch of its own.
JOBS = (("a", "spring"), ("b", "zoe-obrien"))


class Stopped(BaseException):
    """The end of the process."""


def stop_after(calls: int, store: JobStore, patch: pytest.MonkeyPatch) -> None:
    """Let the process end when it has made `calls` calls to Redis."""
    pool, numbers = store._redis.connection_pool, count(1)
    connect = pool.get_connection

    def get_connection(*arguments: object) -> object:
        if next(numbers) > calls:
            raise Stopped
        return connect(*arguments)

    patch.setattr(pool, "get_connection", get_connection)


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: JobStore) -> object:
    yield
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []


def of_person(key: str = "a", batch: str = "spring", **fields: object) -> VoiceJob:
    """Return a job of the person."""
    return voice(
        key=f"{MARK}-{key}",
        name=MARK[:20],
        batch=batch,
        audio_url=f"https://files.example/zoe-obrien-{key}.wav",
        callback_url="https://hooks.example/zoe-obrien",
        metadata={**PERSON, "note": f"{MARK} note"},
        **fields,
    )


def erase(queue: VoiceQueue) -> None:
    """Erase the person."""
    queue.erase(queue.plan_erasure(PERSON).token)


def traces(redis: Redis, prefix: str) -> list[str]:
    """Return the keys that contain a text of the person: each has a word that no encoding changes."""
    return [key for key, value in dump_keys(redis, prefix).items() if WORD in f"{key} {value}"]


@pytest.mark.parametrize("state", [*REACHABLE, State.WAITING])
def test_nothing_of_an_erased_person_stays_in_redis(
    redis: Redis, prefix: str, store: JobStore, queue: VoiceQueue, state: State
) -> None:
    """In each state, in a batch of others or of its own: at once, or when the outcome of its order is known."""
    other = job_with_song(store, batch="spring", key="other")
    if state is State.WAITING:
        job_in_state(store, State.QUEUED, of_person(reuse=True))
        job_in_state(
            store, State.QUEUED, of_person("a2", reuse=True).model_copy(update={"audio_url": of_person().audio_url})
        )
    else:
        for key, batch in JOBS:
            job_in_state(store, state, of_person(key, batch))
    before = get_job(store, other.id)

    erase(queue)

    if store.erasure.due():
        assert state in (State.CHARGING, State.UNSURE)
        for job in [get_job(store, job_id) for job_id in store.erasure.due()]:
            store.apply_transitions([transitions.abandon(job, NOW)] if state is State.UNSURE else [], NOW)
    if state is not State.CHARGING:
        store.erasure.erase(store.erasure.due(), NOW)
        assert traces(redis, prefix) == []
    assert get_job(store, other.id) == before


def undelivered(store: JobStore) -> None:
    """Give up every pending callback."""
    for claim in claim_due(store.callbacks, NOW + 1):
        store.callbacks.mark_undelivered(claim.id, NOW + 1, MARK, is_attempted=True)


def copy_keys(redis: Redis, prefix: str, other: str) -> None:
    """Copy a queue."""
    for key in redis.scan_iter(f"{{{prefix}}}:*", count=1_000):
        redis.copy(key, key.replace(prefix, other, 1))


def named_jobs(redis: Redis, prefix: str) -> set[str]:
    """Return the ids that events, callbacks and entries of the audit log name."""
    everything = dump_keys(redis, prefix)
    entries = [*everything[f"{{{prefix}}}:events"], *everything[f"{{{prefix}}}:audit_log"]]
    fields = [entry.get("id" if "state" in entry else "job_id") for _, entry in entries]
    callback_ids = everything.get(f"{{{prefix}}}:callbacks:undelivered", {})
    owner_ids = {callback_id.partition("-")[0] for callback_id in callback_ids}
    return {*fields, *owner_ids} - {None, "", "batch", REDACTED}


@pytest.mark.parametrize("completed_by", ["operator", "workers"])
def test_an_erasure_that_stops_after_any_call_to_redis_is_completed(
    redis: Redis, valkey_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, completed_by: str
) -> None:
    """The operator repeats it with the same token; the workers delete what names jobs that are gone."""
    with VoiceQueue(valkey_url, prefix=prefix, namespace="*") as queue:
        jobs = [job_in_state(queue._store, State.FAILED, of_person(key, batch)) for key, batch in JOBS]
        other = job_with_song(queue._store, batch="spring", key="other")
        undelivered(queue._store)
        queue.on_behalf_of("cli:ana", reason=MARK).retry(jobs[0].id)
        token = queue.plan_erasure(PERSON).token
    stops = 0
    for calls in count(1):
        case = f"{prefix}-{calls}"
        copy_keys(redis, prefix, case)
        with VoiceQueue(valkey_url, prefix=case, namespace="*") as queue:
            store = queue._store
            with monkeypatch.context() as patch:
                stop_after(calls, store, patch)
                with suppress(Stopped):
                    queue.erase(token)
                    break
            stops += 1
            if completed_by == "workers":
                store.erasure.erase(store.erasure.due(), NOW)
                kept = {job.id for job in store.get([other.id, *(job.id for job in jobs)]) if job}
                assert named_jobs(redis, case) <= kept, calls
            else:
                with suppress(PlanNotFoundError):  # only the reply was missing
                    assert len(queue.erase(token).jobs) == len(jobs), calls
                assert traces(redis, case) == [], calls
                assert get_job(store, other.id) == other
            assert audit(redis, case) == []
    assert stops > 10


def test_a_voice_that_a_job_only_named_is_not_to_be_erased_upstream(store: JobStore, queue: VoiceQueue) -> None:
    """Others may use it."""
    job_in_state(store, State.SUCCEEDED, VoiceJob(persona_id="house-voice", song=SONG, metadata=PERSON))

    certificate = queue.erase(queue.plan_erasure(PERSON).token)

    assert len(certificate.jobs) == 1
    assert "house-voice" not in certificate.upstream_ids


def test_callbacks_messages_checks_and_the_audit_log_forget_the_person(
    redis: Redis, prefix: str, store: JobStore, queue: VoiceQueue
) -> None:
    """Undelivered callbacks, rejected messages and reasons are erased; the audit log still says who did what."""
    job = job_in_state(store, State.FAILED, of_person())
    undelivered(store)
    store.rejected_messages.add(RejectedMessage(NOW, "m", "t", MARK, {"job": {"metadata": PERSON}}))
    store.rejected_messages.add(RejectedMessage(NOW, "n", "t", "no", {"job": {"metadata": {"subject": "4"}}}))
    queue.on_behalf_of("cli:ana", reason=MARK).retry(job.id)

    erase(queue)

    assert traces(redis, prefix) == []
    assert [message.message_id for message in store.rejected_messages.latest()] == ["n"]
    entries = {entry.action: entry for page in store.audit_log.pages(None) for entry in page}
    assert (entries["retry"].actor, entries["retry"].reason) == ("cli:ana", "(erased)")
    assert "erase" in entries


def test_an_erasure_that_does_not_end_is_reported_after_a_day(redis: Redis, store: JobStore, queue: VoiceQueue) -> None:
    """A job that is never settled stays marked; the doctor says what to do."""
    job = job_in_state(store, State.UNSURE, of_person())
    for age, is_reported in ((ERASURE_MAX_S - 100, False), (ERASURE_MAX_S + 100, True)):
        store._redis.zadd(store._space.key("erasing"), {job.id: store.clock() - age})
        warnings = [result for result in results(inspect(redis, store)) if "not erased after a day" in result.message]
        assert [result.level for result in warnings] == [Level.WARNING] * is_reported


@pytest.mark.parametrize("same", ["key", "audio_url"])
def test_an_erased_key_or_recording_is_not_ordered_again(store: JobStore, queue: VoiceQueue, same: str) -> None:
    """In its namespace it is refused until an operator allows it; the preview says so, too."""
    erased = queue.enqueue(of_person())
    erase(queue)
    again = voice(**{same: getattr(erased.spec, same)})

    [preview] = queue.preview([again])
    assert isinstance(preview.error, ErasedError)
    with pytest.raises(ErasedError, match="erased at the request of a person"):
        queue.enqueue(again)
    assert in_namespace(queue, "other").enqueue(again).state is State.QUEUED

    assert queue.allow_erased(key=erased.spec.key, audio_url=erased.spec.audio_url) == 2
    assert queue.enqueue(again).state is State.QUEUED


def test_an_erased_hash_is_allowed_again(queue: VoiceQueue) -> None:
    """It is erased besides the URL of its recording, so it would refuse the job even after that."""
    spec = of_person(audio_sha256="ab" * 32)
    queue.enqueue(spec)
    erase(queue)

    assert queue.allow_erased(key=spec.key, audio_url=spec.audio_url) == 2
    with pytest.raises(ErasedError, match="--allow-hash"):
        queue.enqueue(spec)
    assert queue.allow_erased(audio_sha256="AB" * 32) == 1
    assert queue.enqueue(spec).state is State.QUEUED


def test_an_erased_recording_does_not_replace_that_of_another_job(store: JobStore, queue: VoiceQueue) -> None:
    """Correcting the recording of a job is another way to order it."""
    erased = queue.enqueue(of_person())
    erase(queue)
    [job_id] = enqueue_jobs(store, voice(key="other"))
    job = fail_job(store, get_job(store, job_id), FailureCode.RECORDING_UNREACHABLE)

    with pytest.raises(ErasedError):
        queue.retry(job.id, audio_url=erased.spec.audio_url)
    assert get_job(store, job.id) == job


def test_a_plan_erases_once_and_in_its_namespace_only(queue: VoiceQueue) -> None:
    """The jobs of the same metadata in another namespace stay, and a token returns its certificate again."""
    own, foreign = in_namespace(queue, "shop"), in_namespace(queue, "other")
    kept, plan = foreign.enqueue(of_person()), None
    own.enqueue(of_person())
    plan = own.plan_erasure(PERSON)
    with pytest.raises(PlanNotFoundError):
        foreign.erase(plan.token)
    certificate = own.erase(plan.token)
    assert (plan.count, len(certificate.jobs)) == (1, 1)
    assert MARK not in f"{certificate.as_dict()}"
    assert foreign.get(kept.id) == kept
    own.enqueue(voice(metadata=PERSON))
    assert own.erase(plan.token) == certificate
    assert own.plan_erasure(PERSON).count == 1


@pytest.mark.parametrize(
    "job",
    [
        {"metadata": {"subject": ["42"]}},
        {"metadata": {"subject": {"id": 42}}},
        {"metadata": {"person": {"subject": 42}}},
        {"metadata": [["subject", "42"], ["note", MARK]]},
        {"song": {"prompt": "la " * JOB_MAX}, "metadata": {"note": MARK, "subject": "42"}},
        {"args": [{"song": {"prompt": "la " * JOB_MAX}, "metadata": {"note": MARK, "subject": 42}}], "kwargs": {}},
        {"song": {"prompt": "la " * JOB_MAX}, "metadata": {"subject": "7"}, "key": MARK},
    ],
)
def test_rejected_messages_are_found_by_metadata_of_any_shape(store: JobStore, queue: VoiceQueue, job: Any) -> None:
    """Their shape may be why they were rejected; and a job that is too long is stored without its end."""
    queue.enqueue(voice(key=MARK, metadata={"subject": "42"}))
    store.rejected_messages.add(RejectedMessage(NOW, "m", "t", "no", job))
    for other in ({"subject": "7", "age": "42"}, {"age": ["subject"], "subject": 4}, [["subject", "7"], ["age", "42"]]):
        store.rejected_messages.add(RejectedMessage(NOW, "other", "t", "no", {"metadata": other}))

    assert queue.erase(queue.plan_erasure({"subject": "42"}).token).rejected_messages == 1
    assert {message.message_id for message in store.rejected_messages.latest()} == {"other"}


def test_an_erasure_of_rejected_messages_only_is_in_the_audit_log(store: JobStore, queue: VoiceQueue) -> None:
    """The person may have no job; the messages of others stay, and their total size is right."""
    store.rejected_messages.add(RejectedMessage(NOW, "m", "t", MARK, {"job": {"metadata": PERSON}}))
    store.rejected_messages.add(RejectedMessage(NOW, "n", "t", "no", {"job": {"metadata": {"subject": "4"}}}))
    certificate = queue.on_behalf_of("cli:ana").erase(queue.plan_erasure(PERSON).token)

    assert (len(certificate.jobs), certificate.rejected_messages) == (0, 1)
    [entry] = [entry for page in store.audit_log.pages(None) for entry in page]
    assert (entry.actor, entry.action, entry.jobs) == ("cli:ana", "erase", 0)
    [line] = store._redis.lrange(store._space.key("rejected_messages"), 0, -1)
    assert store._redis.get(store._space.key("rejected_messages:bytes")) == str(len(line))


def test_a_rejected_message_names_a_person_by_metadata_key_or_recording(store: JobStore, queue: VoiceQueue) -> None:
    """Also where the job is stored as text, because it is long or no JSON; a key counts in its namespace only."""
    job = queue.enqueue(of_person())
    long = {"metadata": PERSON, "song": {"prompt": "la " * 8_000}}
    texts = [json.dumps({"metadata": PERSON}, ensure_ascii=False), repr({"metadata": PERSON})]
    named = [{"key": job.spec.key}, {"audio_url": job.spec.audio_url}, long, *texts, {"job": {"args": [long]}}]
    for number, content in enumerate([*named, {"key": "other"}, "subject"]):
        store.rejected_messages.add(RejectedMessage(NOW, str(number), "t", "no", content))
    store.rejected_messages.add(RejectedMessage(NOW, "foreign", "t", "no", named[0], namespace="shop"))

    plan = queue.plan_erasure(PERSON)
    queue.erase(plan.token)

    assert plan.rejected_messages == len(named)
    kept = {message.message_id for message in store.rejected_messages.latest()}
    assert kept == {str(len(named)), str(len(named) + 1), "foreign"}


def test_a_plan_counts_all_others_that_name_the_recording(store: JobStore, queue: VoiceQueue) -> None:
    """In each state, by its URL or its hash, in its namespace only; each is counted once."""
    sha256 = "ab" * 32
    url = of_person().audio_url
    store.enqueue([("own", of_person(audio_sha256=sha256))], NOW)
    for state in REACHABLE:
        job_in_state(store, state, voice(key=state, audio_url=url, batch=state))
    others = [voice(key="hash", audio_sha256=sha256), voice(key="both", audio_url=url, audio_sha256=sha256, reuse=True)]
    store.enqueue([(spec.key or "", spec) for spec in [*others, voice(key="unrelated")]], NOW)
    in_namespace(queue, "shop").enqueue(voice(audio_url=url))

    assert queue.plan_erasure(PERSON).sharing_jobs == len(REACHABLE) + len(others)


def test_a_voice_that_was_copied_for_others_is_erased(
    redis: Redis, prefix: str, store: JobStore, queue: VoiceQueue
) -> None:
    """A job that knows the hash of the recording copies the voice of its URL: that copy is the person's, too."""
    created = job_in_state(store, State.PENDING, of_person(reuse=True))
    apply_transition(store, created, State.SUCCEEDED, fields={"persona_id": "p-zoe-obrien", "settled": str(NOW)})
    copying = voice(key="copy", audio_url=created.spec.audio_url, audio_sha256="ab" * 32, reuse=True)
    [job_id] = enqueue_jobs(store, copying)
    assert get_job(store, job_id).persona_id == "p-zoe-obrien"

    erase(queue)

    voices = [key for key in dump_keys(redis, prefix) if ":voice:" in key or ":voices" in key]
    assert voices == []


def test_a_plan_that_is_never_executed_stores_no_text_of_the_person(
    redis: Redis, prefix: str, queue: VoiceQueue
) -> None:
    """A dry run may be repeated; the plan that is executed then is not the only one."""
    job = queue.enqueue(of_person())
    queue.plan_erasure(PERSON)
    erase(queue)

    assert traces(redis, prefix) == []
    assert str(job.spec.key) not in f"{dump_keys(redis, prefix)}"


def test_the_audit_log_of_another_namespace_keeps_a_batch_of_the_same_name(queue: VoiceQueue) -> None:
    """Erasing the only job of `spring` redacts what names that batch, and nothing of `shop/spring`."""
    own, foreign = in_namespace(queue, ""), in_namespace(queue, "shop")
    for client in (own, foreign):
        client.enqueue(of_person())
        client.set_batch_limits("spring", max_credits=5)

    own.erase(own.plan_erasure(PERSON).token)

    assert [entry.batch for entry in own.audit_log(action="set_batch_limits").items] == [REDACTED]
    assert [entry.batch for entry in foreign.audit_log(action="set_batch_limits").items] == ["spring"]


def test_a_job_without_consent_is_refused_where_it_is_required(store: JobStore, queue: VoiceQueue) -> None:
    """The store refuses it, so that no interface can leave the check out."""
    store.erasure.require_consent(is_required=True)
    for metadata in ({}, {"consent_ref": " "}):
        [preview] = queue.preview([voice(metadata=metadata)])
        assert isinstance(preview.error, InvalidJobError)
        with pytest.raises(InvalidJobError, match=r"metadata.consent_ref: is required here"):
            queue.enqueue(voice(metadata=metadata))
    queue.enqueue(voice(metadata={"consent_ref": "form-17"}))
    store.erasure.require_consent(is_required=False)
    queue.enqueue(voice())
