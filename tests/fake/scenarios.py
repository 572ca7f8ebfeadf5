"""Scenarios of a producer: each uses a queue step by step, and yields its observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.support.jobs import SONG, URL, numbered_voices, results_of, voice, voice_with_song
from voicequeue import BulkAction, Filter, Stage, State, VoiceQueueError
from voicequeue.testing import FakeQueue, fails, moderated, stays_pending, succeeds, unsure

#: A scenario: it uses a queue and yields its observations.
Scenario = Callable[[FakeQueue], Iterator[Any]]


def caught(call: Callable[[], object]) -> tuple[str, str]:
    """Return the type and the text of the error of a call."""
    try:
        call()
    except (VoiceQueueError, ValueError) as error:
        return type(error).__name__, str(error)
    return "", ""


def view(queue: FakeQueue, job_id: str) -> tuple[Any, ...]:
    """Return all that a producer sees of a job, without its times."""
    job = queue.get(job_id)
    timeline = [(entry.state, entry.stage, entry.reason, entry.attempt) for entry in queue.timeline(job_id)]
    return (job.state, job.stage, job.version, job.attempt, job.credits, job.failure, job.clips, timeline, job.source)


def every_ending(queue: FakeQueue) -> Iterator[Any]:
    """Let jobs end in every way, in the first and in the second stage."""
    codes = ("refused", "moderated", "upstream_failed", "deadline", "expired", "recording_unreachable")
    for code in codes:
        queue.script(fails(code), key=code)
    queue.script(fails("upstream_failed", stage="music"), key="second stage")
    queue.script(unsure(stage="music"), key="unsure")
    for key in (*codes, "second stage", "unsure", "succeeds"):
        job = queue.enqueue(voice_with_song(key=key, batch="spring", callback_url="https://shop.example/callbacks"))
        yield queue.wait(job.id).state, view(queue, job.id)
    yield queue.wait_batch("spring").states, queue.batch("spring")
    yield [(event.state, event.stage, event.reason) for event in queue.events("0-0")]
    yield [(callback.type, callback.json()["data"]["credits"]) for callback in queue.sent_callbacks]
    yield queue.spending(["batch"]), queue.callback_counts()


def keys(queue: FakeQueue) -> Iterator[Any]:
    """Enqueue the same key again, with the same and with other content."""
    first, again = queue.enqueue(voice(key="k")), queue.enqueue(voice(key="k"))
    yield first.is_new, again.is_new, first == again, first.price, again.price
    yield caught(lambda: queue.enqueue(voice(key="k", name="other")))
    yield queue.enqueue_many([voice(key="k"), voice(key="l"), {"audio_url": 3}, voice(key="l", name="m")])
    yield [(item.index, item.new_count, item.credits) for item in results_of(queue, [voice(key="k"), {}, voice()])]
    yield list(queue.preview([voice(key="k"), voice(key="new")]))
    yield caught(lambda: queue.enqueue({"audio_url": URL, "promt": "la"})), caught(lambda: queue.get("unknown"))


def shared_voices(queue: FakeQueue) -> Iterator[Any]:
    """Create several songs with one voice, which fails first, and succeeds when its job is retried."""
    queue.script(fails("recording_unfit"), succeeds(persona_id="p-1"), key="ana")
    job = queue.enqueue({"audio_url": URL, "songs": [SONG, SONG], "key": "ana", "batch": "b"})
    yield job.price, [view(queue, job_id) for job_id in job.further_job_ids]
    queue.settle()
    yield [view(queue, job_id) for job_id in (job.id, *job.further_job_ids)]
    for job_id in (job.id, *job.further_job_ids):
        queue.retry(job_id)
    queue.wait_batch("b")
    yield [view(queue, job_id) for job_id in (job.id, *job.further_job_ids)], list(queue.personas())
    queue.enqueue(voice(voice="choir", batch="b"))
    yield caught(lambda: queue.enqueue(voice(audio_url=f"{URL}.wav", voice="choir", batch="b")))


def uncertain_charges(queue: FakeQueue) -> Iterator[Any]:
    """Review jobs: resubmitted, confirmed by a task id, and given up."""
    queue.script(unsure(), succeeds())
    jobs = [queue.enqueue(voice(key=key)) for key in ("resubmitted", "confirmed", "abandoned")]
    queue.settle()
    yield [view(queue, job.id) for job in jobs], len(list(queue.charge_reviews()))
    queue.resubmit(jobs[0].id)
    queue.confirm_charged(jobs[1].id, "task-1")
    queue.abandon(jobs[2].id)
    queue.settle()
    yield [view(queue, job.id) for job in jobs]


def cancelling(queue: FakeQueue) -> Iterator[Any]:
    """Cancel before and after the order, and when it is too late."""
    queue.script(stays_pending(), key="ordered")
    queued, ordered, done = (queue.enqueue(voice(key=key)) for key in ("queued", "ordered", "done"))
    yield queue.cancel(queued.id).state
    yield queue.wait(done.id).state, caught(lambda: queue.wait(ordered.id))
    yield queue.cancel(ordered.id).state, caught(lambda: queue.cancel(done.id))
    queue.settle()
    yield [view(queue, job.id) for job in (queued, ordered, done)]


def retries(queue: FakeQueue) -> Iterator[Any]:
    """Retry jobs: a retry polls what was paid, and pays again if upstream repeats the failure."""
    queue.script(fails("upstream_failed"), succeeds(), key="late")
    queue.script(fails("upstream_failed"), fails("upstream_failed"), succeeds(), key="again")
    queue.script(moderated(), succeeds(), key="moderated")
    jobs = [queue.enqueue(voice(key=key, batch="b")) for key in ("late", "again", "moderated")]
    queue.settle()
    plan = queue.plan_bulk(BulkAction.RETRY, Filter(batch="b"))
    yield plan.count, plan.max_credits, queue.execute_plan(BulkAction.RETRY, plan.token)
    queue.settle()
    yield [view(queue, job.id) for job in jobs]


def holds_and_limits(queue: FakeQueue) -> Iterator[Any]:
    """Use a pause, a batch that may spend no more, one that stops itself, and a hard budget."""
    queue.set_batch_limits("poor", max_credits=4)
    queue.set_batch_limits("failing", stop_after=0.5, stop_min=1, max_in_flight=1)
    queue.script(moderated(), batch="failing")
    for batch in ("paused", "poor", "failing"):
        queue.enqueue_many(voice(batch=batch) for _ in range(2))
    queue.pause(batch="paused")
    queue.settle()
    yield [queue.batch(batch) for batch in ("paused", "poor")], queue.wait_batch("failing").states
    yield [[hold.reason for hold in queue.job_holds(job.id)] for job in queue.jobs(state="queued")]
    queue.resume(batch="paused")
    yield queue.wait_batch("paused").states, queue.status().states, queue.status().backlog_holds


def namespaces(queue: FakeQueue) -> Iterator[Any]:
    """Use another namespace, which has jobs of its own with the same key."""
    shop = FakeQueue(queue.redis, prefix=queue._prefix, namespace="shop")
    ours, theirs = queue.enqueue(voice(key="k")), shop.enqueue(voice(key="k", name="other"))
    queue.settle()
    yield ours.id == theirs.id, caught(lambda: shop.get(ours.id)), shop.get(theirs.id).namespace
    yield caught(shop.audit), [job.spec.name for job in shop.jobs()], queue.namespaces(), shop.namespaces()


def lists(queue: FakeQueue) -> Iterator[Any]:
    """Read pages, searches and positions."""
    queue.enqueue_many(numbered_voices(7, batch="b", metadata={"customer": "17"}))
    queue.script(stays_pending(), key="key-3")
    page = queue.search(Filter(batch="b"), limit=3)
    yield [job.spec.key for job in page.items], page.cursor is None
    yield [job.spec.key for job in queue.search(Filter(batch="b"), limit=9, cursor=page.cursor).items]
    yield [queue.position(job) for job in queue.jobs(batch="b")], queue.list_batches(), queue.first_event_id() < "9"
    queue.settle()
    yield [job.spec.key for job in queue.search(Filter(state=State.PENDING, stage=Stage.VOICE)).items]
    yield [job.spec.key for job in queue.search(Filter(metadata={"customer": "17"}, text="key-5")).items]
    yield queue.status("b").credits, queue.audit_log().items, _operator(queue).audit()


def _operator(queue: FakeQueue) -> FakeQueue:
    return FakeQueue(queue.redis, prefix=queue._prefix, namespace="*")


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        every_ending,
        keys,
        shared_voices,
        uncertain_charges,
        cancelling,
        retries,
        holds_and_limits,
        namespaces,
        lists,
    )
}
