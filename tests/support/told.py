"""A receiver of callbacks that notes what it was told, and what it ought to have been told."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import pairwise

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.scripted import HANG_UP, Request, Scripted, answer
from voicequeue import State, Step
from voicequeue.auth import signatures

TOLD = frozenset({State.SUCCEEDED, State.FAILED, State.UNSURE})


class Told:
    """Takes callbacks signed with what follows from `secret`; of so large a part it takes none, and says so or not."""

    def __init__(self, secret: str, *, seed: int, bad: float) -> None:
        self._root = signatures.callback_secret(secret)
        self._chance = random.Random(seed)
        self._bad = bad
        #: Of each job the types that it was told, in order; repetitions are told once.
        self.of_jobs: dict[str, list[str]] = {}
        #: How its batch stood the last time that it had settled.
        self.last_batch: dict[str, int] = {}
        #: How many came, repetitions and all, and how many of them nobody had signed.
        self.came = self.unsigned = 0
        self._seen: set[str] = set()
        self.receiver = Scripted(self._take)

    def _take(self, request: Request) -> Iterator[bytes]:
        if self._chance.random() < self._bad:
            yield self._chance.choice([HANG_UP, answer("", status="500 Oh"), answer("", status="503 Away")])
            return
        self.came += 1
        try:
            secret = signatures.receiver_secret(self._root, f"http://{request.headers['host']}")
            Webhook(secret).verify(request.body, request.headers)
        except WebhookVerificationError:
            self.unsigned += 1
        if request.headers["webhook-id"] not in self._seen:
            self._seen.add(request.headers["webhook-id"])
            self._note(json.loads(request.body))
        # Taken, and yet not told so: it must come again.
        yield HANG_UP if self._chance.random() < self._bad else answer({})

    def _note(self, told: dict[str, object]) -> None:
        data = told["data"]
        assert isinstance(data, dict)
        if told["type"] == "batch.settled":
            self.last_batch = data["states"]
        else:
            self.of_jobs.setdefault(data["id"], []).append(str(told["type"]))


def expected(timeline: Iterable[Step]) -> list[str]:
    """What a job's timeline says that its caller is told."""
    return [f"job.{now.state}" for before, now in pairwise(timeline) if now.state in TOLD and now.state != before.state]
