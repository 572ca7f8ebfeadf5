"""The queue of a test: the real client over a Redis in this process, with scripted outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

from voicequeue.auth.signatures import callback_secret, receiver_secret
from voicequeue.client.async_queue import AsyncVoiceQueue
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.waiting import Awaited
from voicequeue.domain.job import Event, Job
from voicequeue.errors import WaitTimeoutError
from voicequeue.net.http_types import Target
from voicequeue.storage.connection.client import RedisClient
from voicequeue.testing.callbacks import Receiver, SentCallback
from voicequeue.testing.memory import client_of, start_redis
from voicequeue.testing.outcomes import Outcome, Scripts
from voicequeue.testing.worker import FakeWorker

#: The secret of a test, from which those of the receivers of callbacks are derived.
_SECRET = "the secret of a test: it protects nothing"  # noqa: S105

#: Steps after which a test has no end, such as one whose receiver retries each job that fails.
_STEPS_MAX = 10_000


class InMemoryRedis:
    """A Redis in this process, the scripted outcomes, and a worker for each prefix of keys.

    `server` is one that `start_redis` returned for an earlier test, and is emptied.
    """

    def __init__(self, server: Any = None) -> None:
        self._server = server or start_redis()
        self.scripts = Scripts()
        self.callback_root = callback_secret(_SECRET)
        self._workers: dict[str, FakeWorker] = {}
        self._lock = Lock()
        self.empty()

    def empty(self) -> None:
        """Remove what an earlier test has left."""
        self.connect().flushall()

    def connect(self) -> RedisClient:
        """Return a client of it."""
        return client_of(self._server)

    def worker(self, prefix: str) -> FakeWorker:
        """Return the worker of the queue with this prefix."""
        with self._lock:  # threads that use the queue first at the same time have the same worker
            if prefix not in self._workers:
                self._workers[prefix] = FakeWorker(self.connect(), prefix, self.scripts, self.callback_root)
            return self._workers[prefix]


class FakeQueue(VoiceQueue):
    """A `VoiceQueue` for tests, which needs no Redis, no workers and no network.

    It has every method of `VoiceQueue`, with the same validation, key conflicts, namespaces, batches, budgets and
    errors, because it is one: its Redis is in this process. A job moves when it is awaited, and with `advance` and
    `settle`. It succeeds, unless `script` says otherwise.

    Args:
        redis: The Redis of another `FakeQueue.redis`, to share its jobs. None starts an empty one.
        prefix: As in `VoiceQueue`.
        reuse: As in `VoiceQueue`.
        app: As in `VoiceQueue`.
        namespace: As in `VoiceQueue`.

    Raises:
        MissingExtraError: The extra `voicequeue[dev]` is not installed.
    """

    def __init__(
        self,
        redis: InMemoryRedis | None = None,
        *,
        prefix: str | None = None,
        reuse: bool = False,
        app: str = "",
        namespace: str | None = None,
    ) -> None:
        self.redis = redis or InMemoryRedis()
        super().__init__("redis://in-this-process", prefix=prefix, reuse=reuse, app=app, namespace=namespace)

    def _connect(self, _: str, /, **__: float) -> RedisClient:
        return self.redis.connect()

    # ── the script ─────────────────────────────────────────────────────────────────────────────

    def script(
        self,
        *outcomes: Outcome,
        key: str | None = None,
        name: str | None = None,
        batch: str | None = None,
        where: Callable[[Job], bool] | None = None,
    ) -> None:
        """Set the outcome of jobs; of several scripts that match a job, the latest applies.

        Args:
            outcomes: One outcome, or several for a job that is retried or resubmitted: the next one each time, and the
                last one from then on.
            key: Only the job with this key.
            name: Only jobs with this name.
            batch: Only jobs of this batch.
            where: Only jobs for which this returns true.

        Raises:
            ValueError: No outcome is given, or something else than an outcome.
        """
        if not outcomes or not all(isinstance(outcome, Outcome) for outcome in outcomes):
            raise ValueError("outcomes: give at least one, such as succeeds() or fails('refused'), and nothing else")
        properties = {"key": key, "name": name, "batch": batch}

        def matches(job: Job) -> bool:
            fits = all(value is None or getattr(job.spec, field) == value for field, value in properties.items())
            return fits and (where is None or where(job))

        self.redis.scripts.add(matches, outcomes)

    # ── the time ───────────────────────────────────────────────────────────────────────────────

    def advance(self) -> bool:
        """Take each job one step further (admit it, order a stage, get its result), and send callbacks that are due.

        Returns:
            Whether there was anything to do.
        """
        return self._worker.advance()

    def settle(self) -> None:
        """Advance until nothing is left to do: jobs are settled, unsure, held, or stay pending as scripted.

        Raises:
            RuntimeError: There is no end, because each callback or event leads to a new job.
        """
        for _ in range(_STEPS_MAX):
            if not self.advance():
                return
        raise RuntimeError(f"the queue has not settled in {_STEPS_MAX:,} steps")

    @property
    def _worker(self) -> FakeWorker:
        return self.redis.worker(self._prefix)

    def _await_event(self, awaited: Awaited[object], after: str, _: float | None, /) -> str:
        advance_or_time_out(self, self._worker, awaited)
        return after

    def _read_events(self, after: str, *, wait_s: float) -> tuple[list[Event], str]:
        return advanced_events(self._worker, partial(super()._read_events, after, wait_s=0.0), wait_s)

    # ── callbacks ──────────────────────────────────────────────────────────────────────────────

    @property
    def sent_callbacks(self) -> list[SentCallback]:
        """The callbacks that were sent so far, the oldest first."""
        return self._worker.sent

    def deliver_to(self, receiver: Receiver) -> None:
        """Deliver callbacks to a function from now on, such as one that passes them to the test client of an app.

        It returns the HTTP status of the app's answer: 2xx accepts the callback, 410 gives it up, and after any other
        one it is due again in an hour, or after `redeliver_callbacks`.

        Args:
            receiver: The function. Until this is called, every callback is accepted. If it returns no status,
                `advance`, `settle` and waiting raise a TypeError.
        """
        self._worker.receiver = receiver

    def callback_secret(self, url: str) -> str:
        """Return the secret with which the receiver at a URL verifies callbacks, as `voicequeue callback-secret` does.

        Args:
            url: URL of the receiver.
        """
        return receiver_secret(self.redis.callback_root, Target.parse(url).origin)


class AsyncFakeQueue(AsyncVoiceQueue):
    """An `AsyncVoiceQueue` for tests: the asynchronous twin of a `FakeQueue`, with the same jobs.

    Args:
        fake: The queue that is scripted, advanced, and has the callbacks. None creates one.
    """

    def __init__(self, fake: FakeQueue | None = None) -> None:
        self.fake = fake or FakeQueue()
        super().__init__("redis://in-this-process", prefix=self.fake._prefix, namespace=self.fake.namespace)
        self._queue = self.fake

    async def _ensure_listener(self) -> None:
        """Need no listener: waiting advances the jobs."""

    async def _await_event(self, awaited: Awaited[object], _: asyncio.Event, /) -> None:
        await self._run(partial(self.fake._await_event, awaited, "0-0", None))


def advance_or_time_out(queue: VoiceQueue, worker: FakeWorker, awaited: Awaited[object]) -> None:
    """Advance the jobs, instead of waiting for an event. Raises WaitTimeoutError at once if nothing is left to do."""
    if worker.advance():
        return
    _, is_over = awaited.read(queue)  # another thread may have advanced them
    if not is_over:
        raise awaited.timed_out()


def advanced_events(
    worker: FakeWorker, read: Callable[[], tuple[list[Event], str]], wait_s: float
) -> tuple[list[Event], str]:
    """Return the next events; advance the jobs if the caller would wait for one. Raises WaitTimeoutError if none will
    come."""
    events, last_id = read()
    while wait_s and not events:
        if not worker.advance():
            raise WaitTimeoutError("no event will come: nothing is left to do in this test")
        events, last_id = read()
    return events, last_id
