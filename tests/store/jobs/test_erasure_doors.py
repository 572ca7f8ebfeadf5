"""Each interface that enqueues refuses what was erased, and jobs without the consent that the queue requires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.enqueue import enqueue_or_reject
from tests.store.life import NOW
from tests.support.jobs import SONG, URL, results_of, voice
from voicequeue import State, VoiceJob, VoiceQueue
from voicequeue.errors import ErasedError, InvalidJobError, VoiceQueueError
from voicequeue.storage.job_store import JobStore

PERSON = {"subject": "42"}


def by_message(_: VoiceQueue, store: JobStore, job: VoiceJob) -> object:
    """Enqueue by a Celery message."""
    content = job.model_dump(mode="json", exclude_defaults=True)
    return enqueue_or_reject(store, [content], {}, message_id="m", now=NOW)


def accepted(error: VoiceQueueError | None) -> bool:
    """Return that there is no error, or raise it."""
    if error is not None:
        raise error
    return True


#: Every way to enqueue in this process; of HTTP and commands: test_web_erasure.py, test_cli_erase.py.
DOORS: dict[str, Callable[[VoiceQueue, JobStore, VoiceJob], object]] = {
    "enqueue": lambda queue, _, job: queue.enqueue(job),
    "enqueue_many, each result": lambda queue, _, job: accepted(results_of(queue, [job])[0].error),
    "enqueue_many": lambda queue, _, job: [accepted(one.error) for one in queue.enqueue_many([job]).rejections],
    "preview": lambda queue, _, job: [accepted(one.error) for one in queue.preview([job])],
    "message": by_message,
}
EVERY_DOOR = pytest.mark.parametrize("door", DOORS)


@EVERY_DOOR
@pytest.mark.parametrize(
    "fields", [{"key": "own", "audio_url": "https://a.example/b.wav"}, {"audio_sha256": "ab" * 32}, {}]
)
def test_no_interface_orders_what_was_erased(
    queue: VoiceQueue, store: JobStore, door: str, fields: dict[str, Any]
) -> None:
    """By its key, the URL or the hash of its recording; a rejected message does not store it again."""
    queue.enqueue(voice(key="own", audio_sha256="ab" * 32, metadata=PERSON))
    queue.erase(queue.plan_erasure(PERSON).token)
    again = voice(**{"audio_url": "https://a.example/c.wav" if fields else URL, "name": "Ana", **fields})

    with pytest.raises(ErasedError):
        DOORS[door](queue, store, again)
    assert list(queue.jobs()) == []
    assert "Ana" not in str(store.rejected_messages.latest())


@EVERY_DOOR
def test_no_interface_leaves_out_the_consent(queue: VoiceQueue, store: JobStore, door: str) -> None:
    """The error names the field; of a job with several songs none is enqueued."""
    store.erasure.require_consent(is_required=True)

    for fields in ({}, {"metadata": {"consent_ref": ""}}, {"songs": (SONG, SONG), "key": "two"}):
        with pytest.raises(InvalidJobError, match=r"metadata\.consent_ref"):
            DOORS[door](queue, store, voice(**fields))
    assert list(queue.jobs()) == []
    DOORS[door](queue, store, voice(metadata={"consent_ref": "form-17"}))
    assert [job.state for job in queue.jobs()] == [State.QUEUED] * (door != "preview")
