"""The queue of a test: scripts, steps, callbacks, and the queues that an app creates itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from standardwebhooks import Webhook

from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import AsyncVoiceQueue, FailureCode, InvalidStateError, State, VoiceQueue, WaitTimeoutError
from voicequeue.testing import (
    AsyncFakeQueue,
    FakeQueue,
    Outcome,
    SentCallback,
    fails,
    moderated,
    stays_pending,
    succeeds,
    unsure,
)

URL = "https://shop.example/callbacks"


def test_a_queue_is_empty_and_ready_in_no_time(voicequeue_queue: FakeQueue) -> None:
    """Under 50 ms of processor time, so that each test can have its own; the first one loads the packages."""
    began = time.process_time()
    with FakeQueue() as other:
        took = time.process_time() - began
        assert list(other.jobs()) == []

    assert took < 0.05
    assert list(voicequeue_queue.jobs()) == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_test_sees_no_jobs_of_the_one_before(voicequeue_queue: FakeQueue, number: int) -> None:
    """Nor its scripts."""
    assert voicequeue_queue.wait(voicequeue_queue.enqueue(voice(key="k")).id).state is State.SUCCEEDED
    voicequeue_queue.script(moderated())


# ── scripts ───────────────────────────────────────────────────────────────────────────────────────


def test_the_latest_script_that_matches_applies(voicequeue_queue: FakeQueue) -> None:
    """By key, name, batch or a function; without a script, a job succeeds."""
    queue = voicequeue_queue
    queue.script(fails("refused"), batch="b")
    queue.script(fails("deadline"), key="k")
    queue.script(fails("expired"), name="Ana")
    queue.script(fails("moderated"), where=lambda job: job.spec.metadata.get("customer") == "17")
    specs = [
        voice(),
        voice(batch="b"),
        voice(batch="b", key="k"),
        voice(batch="b", name="Ana"),
        voice(batch="b", name="Ana", metadata={"customer": "17"}),
    ]

    failures = [queue.wait(queue.enqueue(spec).id).failure for spec in specs]

    codes = [None if failure is None else failure.code for failure in failures]
    assert codes == [
        None,
        FailureCode.REFUSED,
        FailureCode.DEADLINE,
        FailureCode.EXPIRED,
        FailureCode.MODERATED,
    ]


def test_a_retried_job_has_the_next_outcome(voicequeue_queue: FakeQueue) -> None:
    """The last outcome stays."""
    voicequeue_queue.script(moderated("no"), fails("refused"), succeeds(persona_id="p-1"))
    job = voicequeue_queue.enqueue(voice())
    codes: list[object] = []
    while (done := voicequeue_queue.wait(job.id)).failure is not None:
        codes.append(done.failure.code)
        voicequeue_queue.retry(job.id)

    assert codes == ["moderated", "refused"]
    assert done.persona_id == "p-1"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fails("abandoned"), "is a decision of a person"),
        (lambda: fails("nosuchcode"), "code: 'nosuchcode' is not one of refused, "),
        (lambda: unsure(stage="nosuchstage"), "stage: 'nosuchstage' is not one of voice, music"),
        (lambda: succeeds(clips=[{"clip_id": "c"}]), "clips: each must be a voicequeue.Clip"),  # type: ignore[list-item]
    ],
)
def test_an_outcome_that_cannot_be_is_an_error(make: Callable[[], Outcome], text: str) -> None:
    """When it is made."""
    with pytest.raises(ValueError, match=text):
        make()


def test_a_script_needs_an_outcome(voicequeue_queue: FakeQueue) -> None:
    """At least one, and not a function that makes one."""
    with pytest.raises(ValueError, match="give at least one"):
        voicequeue_queue.script(key="k")
    with pytest.raises(ValueError, match="nothing else"):
        voicequeue_queue.script(fails)  # type: ignore[arg-type]


# ── time ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_moves_one_step_at_a_time(voicequeue_queue: FakeQueue) -> None:
    """So that an app's view of each state can be tested."""
    job, states = voicequeue_queue.enqueue(voice_with_song()), [State.QUEUED]
    while voicequeue_queue.advance():
        states.append(voicequeue_queue.get(job.id).state)

    pair = [State.ADMITTED, State.PENDING]
    assert states == [State.QUEUED, *pair, *pair, State.SUCCEEDED]


def test_a_job_that_was_not_submitted_in_time_expires(voicequeue_queue: FakeQueue) -> None:
    """As with real workers, whose maintenance fails it."""
    voicequeue_queue.enqueue(voice(batch="b", start_within_s=0.01))
    voicequeue_queue.pause(batch="b")
    time.sleep(0.02)
    voicequeue_queue.settle()

    assert voicequeue_queue.batch("b").failures == {FailureCode.EXPIRED: 1}


def test_threads_that_use_a_queue_first_share_its_worker() -> None:
    """Otherwise one sees a job that the other one is working on, and takes it for a job that will not move."""
    for _ in range(20):
        queue, barrier = FakeQueue(), Barrier(4)

        def worker(queue: FakeQueue = queue, barrier: Barrier = barrier) -> object:
            barrier.wait()
            return queue.redis.worker("voicequeue")

        with ThreadPoolExecutor(4) as threads:
            workers = {id(future.result()) for future in [threads.submit(worker) for _ in range(4)]}
        assert len(workers) == 1


def test_waiting_for_what_never_comes_is_a_timeout_at_once(voicequeue_queue: FakeQueue) -> None:
    """With any timeout: a test does not hang."""
    voicequeue_queue.script(stays_pending())
    job, began = voicequeue_queue.enqueue(voice(batch="b")), time.monotonic()

    with pytest.raises(WaitTimeoutError, match="it is pending"):
        voicequeue_queue.wait(job.id)
    with pytest.raises(WaitTimeoutError, match="1 of 1 job"):
        voicequeue_queue.wait_batch("b", timeout=600)
    with pytest.raises(WaitTimeoutError, match="nothing is left to do"):
        next(voicequeue_queue.watch())
    assert time.monotonic() - began < 60


# ── the app's own queues ──────────────────────────────────────────────────────────────────────────


def test_a_queue_that_the_app_creates_has_the_same_jobs(voicequeue_queue: FakeQueue) -> None:
    """With any URL; its namespace and its waiting are its own."""
    voicequeue_queue.script(moderated(), key="rude")

    with VoiceQueue("redis://db.example:6379/3", app="shop", namespace="shop") as queue:
        job = queue.enqueue(voice(key="rude"))
        assert queue.wait(job.id, timeout=600).state is State.FAILED
        states = [event.state for event in queue.events("0-0") if event.job_id]

    assert states[-1] is State.FAILED
    assert list(voicequeue_queue.jobs()) == []
    with FakeQueue(voicequeue_queue.redis, namespace="*") as operator:
        assert [job.source for job in operator.jobs()] == ["library:shop"]


def test_an_async_queue_that_the_app_creates_has_the_same_jobs(voicequeue_queue: FakeQueue) -> None:
    """Many waits at once."""

    async def use() -> list[State]:
        async with AsyncVoiceQueue() as queue:
            await queue.enqueue_many(numbered_voices(5, batch="b"))
            waits = [queue.wait(job.id, timeout=600) async for job in queue.jobs(batch="b")]
            return [job.state for job in await asyncio.gather(*waits)]

    assert asyncio.run(use()) == [State.SUCCEEDED] * 5
    assert voicequeue_queue.batch("b").is_settled


def test_an_async_queue_can_be_given_to_the_app(async_voicequeue_queue: AsyncFakeQueue) -> None:
    """It is scripted by its synchronous twin."""
    queue = async_voicequeue_queue
    queue.fake.script(unsure(), key="k")
    queue.fake.script(stays_pending(), key="late")

    async def use() -> None:
        job = await queue.enqueue(voice(key="k", batch="b"))
        assert (await queue.wait(job.id)).state is State.UNSURE
        assert (await queue.wait_batch("b")).is_settled
        late = await queue.enqueue(voice(key="late"))
        with pytest.raises(WaitTimeoutError):
            await queue.wait(late.id, timeout=600)
        with pytest.raises(InvalidStateError):
            await queue.retry(late.id)
        await queue.close()

    asyncio.run(use())


# ── callbacks ─────────────────────────────────────────────────────────────────────────────────────


def test_a_callback_is_signed_as_a_real_one(voicequeue_queue: FakeQueue) -> None:
    """The receiver verifies it with the secret of its origin."""
    job = voicequeue_queue.enqueue(voice(callback_url=URL))
    voicequeue_queue.set_batch_callback("b", URL)
    voicequeue_queue.enqueue(voice(batch="b"))
    voicequeue_queue.settle()

    # Both are due at the same time.
    second, first = sorted(voicequeue_queue.sent_callbacks, key=lambda callback: callback.type)
    event = Webhook(voicequeue_queue.callback_secret(URL)).verify(first.body, dict(first.headers))

    assert event == first.json()
    assert (first.type, first.url, event["data"]["id"]) == ("job.succeeded", URL, job.id)
    assert second.type == "batch.settled"
    assert first.id != second.id


def test_a_receiver_may_refuse_a_callback(voicequeue_queue: FakeQueue) -> None:
    """It is sent again when an operator asks for that; 410 gives it up."""
    statuses = iter((503, 200, 410))
    received: list[str] = []

    def receive(callback: SentCallback) -> int:
        received.append(callback.id)
        return next(statuses)

    voicequeue_queue.deliver_to(receive)
    voicequeue_queue.wait(voicequeue_queue.enqueue(voice(callback_url=URL)).id)
    voicequeue_queue.settle()
    [pending] = voicequeue_queue.callbacks()
    assert pending.last_error == "HTTP 503"

    voicequeue_queue.redeliver_callbacks([pending.id])
    voicequeue_queue.settle()
    voicequeue_queue.wait(voicequeue_queue.enqueue(voice(callback_url=URL)).id)
    voicequeue_queue.settle()

    assert received[:2] == [pending.id] * 2
    counts = voicequeue_queue.callback_counts()
    assert (counts.delivered, counts.undelivered, counts.pending) == (1, 1, 0)


def test_a_receiver_that_returns_no_status_is_named(voicequeue_queue: FakeQueue) -> None:
    """Such as the response itself."""
    voicequeue_queue.deliver_to(lambda _: None)  # type: ignore[arg-type, return-value]
    voicequeue_queue.enqueue(voice(callback_url=URL))

    with pytest.raises(TypeError, match="must return the HTTP status, such as 200, not None"):
        voicequeue_queue.settle()


# ── installation ──────────────────────────────────────────────────────────────────────────────────


def test_the_plugin_imports_nothing_until_a_test_needs_it() -> None:
    """It must not slow the tests of other packages in the same environment."""
    program = "import sys, pytest, voicequeue.testing.plugin; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert {"fakeredis", "lupa", "redis", "pydantic", "voicequeue.client"} & set(loaded) == set()


@pytest.mark.endurance
def test_a_missing_extra_is_named() -> None:
    """With the command that installs it."""
    program = "import sys; sys.modules['fakeredis'] = None; from voicequeue.testing import FakeQueue; FakeQueue()"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'voicequeue[dev]'" in done.stderr.splitlines()[-1]
