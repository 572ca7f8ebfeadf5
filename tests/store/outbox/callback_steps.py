"""Steps that tests of callbacks in the store share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.store.life import NOW, accepted, charging, one
from tests.support.jobs import voice
from voicequeue import Job
from voicequeue.domain import transitions
from voicequeue.storage.callbacks import Call, Callbacks
from voicequeue.storage.job_store import Store

HOOK = "https://hooks.example/voices"
LEASE = 60.0


def claim_due(callbacks: Callbacks, now: float = NOW) -> list[Call]:
    """Hand out the callbacks that are due, and claim them."""
    return callbacks.claim(callbacks.hand_out(now, patience=LEASE), now, lease=LEASE)


def only(claims: Iterable[Call]) -> Call:
    """Return the single claim."""
    [claim] = claims
    return claim


def payload(claim: Call) -> dict[str, Any]:
    """Return the JSON that the receiver gets."""
    body: dict[str, Any] = json.loads(claim.body())
    return body


def types(claims: Iterable[Call]) -> list[str]:
    """Return the types of the callbacks."""
    return [claim.type for claim in claims]


def voice_with_callback(**fields: Any) -> Any:
    """Return a voice job with a callback URL."""
    return voice(callback_url=HOOK, **fields)


def deliver_all(store: Store, now: float = NOW) -> list[str]:
    """Deliver every callback that is or becomes due; return their types in order."""
    delivered: list[str] = []
    while claims := claim_due(store.callbacks, now):
        for claim in claims:
            assert store.callbacks.delivered(claim.id, now)
            delivered.append(claim.type)
    return delivered


def retry(store: Store, job: Job, now: float = NOW) -> Job:
    """Queue a failed job again."""
    assert store.apply([transitions.retry(job, now, resubmit=True)], now) == [True]
    return one(store, job.id)


def submit_again(store: Store, job_id: str, now: float = NOW) -> Job:
    """Submit a retried job; it is pending then."""
    store.admit(now)
    charging(store, job_id, now)
    return accepted(store, job_id, now)
