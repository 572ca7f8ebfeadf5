"""A callback receiver that records events, and the events it should have received."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import pairwise

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.scripted import HANG_UP, Request, ScriptedServer, answer
from voicequeue import State, TimelineEntry
from voicequeue.auth import signatures

NOTIFIED_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.UNSURE})


class CallbackReceiver:
    """Receiver of signed callbacks.

    A random fraction `bad` of them fails: with an error, or without a response although the event was taken.
    """

    def __init__(self, secret: str, *, seed: int, bad: float, host: str = "127.0.0.1") -> None:
        self._root = signatures.callback_secret(secret)
        self._random = random.Random(seed)
        self._bad = bad
        #: Event types by job, in order, without repetitions.
        self.of_jobs: dict[str, list[str]] = {}
        #: The states in the last `batch.settled` event.
        self.last_batch: dict[str, int] = {}
        #: Number of callbacks received, repetitions included, and number of those with an invalid signature.
        self.received = self.unsigned = 0
        self._seen: set[str] = set()
        self.server = ScriptedServer(self._receive, host=host)

    def _receive(self, request: Request) -> Iterator[bytes]:
        if self._random.random() < self._bad:
            yield self._random.choice([HANG_UP, answer("", status="500 Oh"), answer("", status="503 Away")])
            return
        self.received += 1
        try:
            secret = signatures.receiver_secret(self._root, f"http://{request.headers['host']}")
            Webhook(secret).verify(request.body, request.headers)
        except WebhookVerificationError:
            self.unsigned += 1
        if request.headers["webhook-id"] not in self._seen:
            self._seen.add(request.headers["webhook-id"])
            self._record(json.loads(request.body))
        # A delivery that was taken but not acknowledged must be repeated.
        yield HANG_UP if self._random.random() < self._bad else answer({})

    def _record(self, event: dict[str, object]) -> None:
        data = event["data"]
        assert isinstance(data, dict)
        if event["type"] == "batch.settled":
            self.last_batch = data["states"]
        else:
            self.of_jobs.setdefault(data["id"], []).append(str(event["type"]))


def expected(timeline: Iterable[TimelineEntry]) -> list[str]:
    """Return the events that a job's timeline implies."""
    return [
        f"job.{after.state}"
        for before, after in pairwise(timeline)
        if after.state in NOTIFIED_STATES and after.state != before.state
    ]
