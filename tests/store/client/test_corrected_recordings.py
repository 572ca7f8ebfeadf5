"""Retrying with a corrected URL: the job keeps its key, and nothing is paid twice."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import SONG, results_of, voice, voice_with_song
from voicequeue import Failure, FailureCode, InvalidJobError, InvalidStateError, Job, Stage, State, VoiceQueue
from voicequeue.client.queue import with_audio_hosts, with_source
from voicequeue.domain import serialization
from voicequeue.domain.source import Source
from voicequeue.storage.job_store import JobStore

OTHER = "https://recordings.example/corrected.wav"


def unreachable(store: JobStore, job_id: str) -> Job:
    """Admit a job and fail it, as the check of its recording does."""
    store.admit(NOW)
    failure = Failure(FailureCode.RECORDING_UNREACHABLE, Stage.VOICE, "HTTP 404: not found")
    fields = {"failure": serialization.failure_text(failure), "settled": f"{NOW:.6f}"}
    return apply_transition(store, get_job(store, job_id), State.FAILED, reason=failure.code, fields=fields)


def ordered(store: JobStore, job_id: str) -> Job:
    """Order the voice of a queued job."""
    store.admit(NOW)
    claim_admitted(store, job_id)
    return accept_order(store, job_id)


def test_a_corrected_job_is_ordered_from_its_new_recording(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str
) -> None:
    """Its key stays, the hash of the old recording is dropped, and the timeline says who corrected it."""
    original = voice(key="k", audio_sha256="0" * 64)
    job = unreachable(store, queue.enqueue(original).id)

    retried = with_source(queue, Source.HTTP.with_caller("shop")).retry(job.id, audio_url=f" {OTHER} ")

    assert (retried.id, retried.state, retried.spec.key) == (job.id, State.QUEUED, "k")
    assert (retried.spec.audio_url, retried.spec.audio_sha256, retried.failure) == (OTHER, None, None)
    assert [step.reason for step in queue.timeline(job.id)][-2:] == ["audio_url corrected by http:shop", "retry"]
    store.admit(NOW)
    claim = claim_admitted(store, job.id)
    assert claim is not None
    assert claim.spec().audio_url == OTHER
    assert redis.hget(f"{{{prefix}}}:job:{job.id}", "sha256") is None
    assert_consistent(redis, prefix)


def test_enqueueing_a_corrected_job_again_finds_it(queue: VoiceQueue, store: JobStore) -> None:
    """With the content that it had, or has; a dry run says the same. Other content is a conflict as ever."""
    contents = [voice(key="k", audio_url=f"https://recordings.example/{name}.wav") for name in "abc"]
    job = queue.enqueue(contents[0])
    for content in contents[1:]:
        queue.retry(unreachable(store, job.id).id, audio_url=content.audio_url)

    other = voice(key="k", audio_url="https://recordings.example/d.wav")
    assert [entry.new_count for entry in results_of(queue, [*contents, other])] == [0, 0, 0, 0]
    assert [entry.error is None for entry in results_of(queue, [*contents, other])] == [True, True, True, False]
    previews = list(queue.preview([*contents, other]))
    assert [preview.is_new for preview in previews] == [False] * 4
    assert [preview.error is None for preview in previews] == [True, True, True, False]


def test_the_jobs_of_a_named_voice_follow_the_correction(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str
) -> None:
    """One of them creates the voice from the new recording, the others use it; none orders the old one."""
    spec = voice(key="k", songs=(SONG, SONG, SONG), batch="b")
    ids = results_of(queue, [spec])[0].job_ids
    bystander = unreachable(store, queue.enqueue(voice(key="other", batch="b")).id)
    unreachable(store, ids[0])
    assert {get_job(store, job_id).state for job_id in ids} == {State.FAILED}

    queue.retry(ids[1], audio_url=OTHER)
    for job_id in (ids[0], ids[2]):
        queue.retry(job_id)

    assert {get_job(store, job_id).spec.audio_url for job_id in ids} == {OTHER}
    assert sorted(get_job(store, job_id).state for job_id in ids) == [State.QUEUED, State.WAITING, State.WAITING]
    assert get_job(store, bystander.id).spec.audio_url == bystander.spec.audio_url
    assert [entry.new_count for entry in results_of(queue, [spec])] == [0]
    assert results_of(queue, [spec])[0].error is None
    assert_consistent(redis, prefix)


def test_a_voice_that_is_shared_by_recording_is_left_for_the_new_one(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str
) -> None:
    """The job uses a voice that exists for the corrected URL; others keep their own recording."""
    created = queue.enqueue(voice(key="there", audio_url=OTHER, reuse=True))
    pending = ordered(store, created.id)
    apply_transition(store, pending, State.SUCCEEDED, fields={"persona_id": "p1", "settled": f"{NOW:.6f}"})
    job = unreachable(store, queue.enqueue(voice_with_song(key="k", reuse=True)).id)
    other = queue.enqueue(voice_with_song(key="l", reuse=True))

    retried = queue.retry(job.id, audio_url=OTHER)

    assert (retried.state, retried.stage, retried.credits) == (State.QUEUED, Stage.MUSIC, 0)
    assert retried.persona_id == get_job(store, created.id).persona_id
    assert get_job(store, other.id).spec.audio_url == other.spec.audio_url
    assert_consistent(redis, prefix)


@pytest.mark.parametrize("state", [state for state in State if state not in (State.WAITING, State.FAILED)])
def test_only_a_failed_job_is_corrected(queue: VoiceQueue, store: JobStore, state: State) -> None:
    """A job whose order was sent, or is about to be, keeps its recording."""
    job = job_in_state(store, state)
    with pytest.raises(InvalidStateError):
        queue.retry(job.id, audio_url=OTHER)
    assert get_job(store, job.id) == job


def test_a_voice_that_was_paid_or_may_have_been_is_not_corrected(queue: VoiceQueue, store: JobStore) -> None:
    """Its money would be lost."""
    job = queue.enqueue(voice(key="paid"))
    paid = fail_job(store, ordered(store, job.id), FailureCode.UPSTREAM_FAILED)
    with pytest.raises(InvalidStateError, match="was ordered from its recording and paid already"):
        queue.retry(paid.id, audio_url=OTHER)

    lost = queue.abandon(job_in_state(store, State.UNSURE).id)
    with pytest.raises(InvalidStateError, match="was lost and may have been charged"):
        queue.retry(lost.id, audio_url=OTHER)


@pytest.mark.parametrize("url", ["", "ftp://host/a.wav", "C:\\a.wav", "https://host/a b.wav"])
def test_a_corrected_url_is_checked_as_any_other(queue: VoiceQueue, store: JobStore, url: str) -> None:
    """And the job is left as it is."""
    job = unreachable(store, queue.enqueue(voice(key="k")).id)
    with pytest.raises(InvalidJobError, match="audio_url"):
        queue.retry(job.id, audio_url=url)
    assert get_job(store, job.id) == job


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://drive.google.com/file/d/1x/view", "opens a page of Google Drive"),
        ("https://www.dropbox.com/s/x/a.wav?dl=0", "write dl=1"),
        ("https://www.youtube.com/watch?v=1", "video page"),
        ("http://10.0.0.1/a.wav", "only your own network reaches"),
        ("https://host.example/a.wav?a=1&amp;b=2", "HTML code"),
        ("https://host.example/a.wav?expires=1700000000&signature=x", "expired on"),
    ],
)
def test_a_correction_is_refused_where_ingest_rejects_the_link(
    queue: VoiceQueue, store: JobStore, url: str, reason: str
) -> None:
    """With the same sentence; the job keeps its recording."""
    job = unreachable(store, queue.enqueue(voice(key="k")).id)
    with pytest.raises(InvalidJobError, match=reason):
        queue.retry(job.id, audio_url=url)
    assert get_job(store, job.id) == job


def test_a_correction_may_name_a_host_that_the_settings_allow(
    queue: VoiceQueue, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the process: of its environment, or as the gateway passes them. Doubtful links are accepted as well."""
    url = "http://10.0.0.1/a.wav"
    first, second, doubtful = (unreachable(store, queue.enqueue(voice(key=key)).id) for key in "abc")
    assert with_audio_hosts(queue, "10.0.0.0/8").retry(first.id, audio_url=url).spec.audio_url == url
    monkeypatch.setenv("VOICEQUEUE_AUDIO_ALLOWED_HOSTS", "10.0.0.1")
    assert queue.retry(second.id, audio_url=url).spec.audio_url == url
    assert queue.retry(doubtful.id, audio_url="https://host.example/a.m4a").state is State.QUEUED


def test_an_object_is_named_in_any_case(queue: VoiceQueue, store: JobStore) -> None:
    """Only the scheme is written in lower case; the names of buckets and keys depend on it."""
    job = unreachable(store, queue.enqueue(voice(key="k")).id)
    assert queue.retry(job.id, audio_url="S3://bucket/Ana.wav").spec.audio_url == "s3://bucket/Ana.wav"


def test_a_job_that_has_succeeded_is_not_told_to_be_retried(queue: VoiceQueue, store: JobStore) -> None:
    """Its state is what prevents a correction."""
    job = job_in_state(store, State.SUCCEEDED)
    with pytest.raises(InvalidStateError, match="only a failed job can be retried"):
        queue.retry(job.id, audio_url=OTHER)
