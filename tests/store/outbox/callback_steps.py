"""Steps that tests of callbacks in the store share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.store.life import NOW, accept_order, claim_admitted, get_job
from tests.support.jobs import voice
from voicequeue import Job
from voicequeue.domain import transitions
from voicequeue.storage.callbacks import CallbackClaim, CallbackOutbox
from voicequeue.storage.job_store import JobStore

HOOK = "https://hooks.example/voices"
LEASE = 60.0


def claim_due(callbacks: CallbackOutbox, now: float = NOW) -> list[CallbackClaim]:
    """Hand out the callbacks that are due, and claim them."""
    return callbacks.claim(callbacks.lease(now, lease_s=LEASE), now, lease_s=LEASE)


def only(claims: Iterable[CallbackClaim]) -> CallbackClaim:
    """Return the single claim."""
    [claim] = claims
    return claim


def payload(claim: CallbackClaim) -> dict[str, Any]:
    """Return the JSON that the receiver gets."""
    body: dict[str, Any] = json.loads(claim.body())
    return body


def types(claims: Iterable[CallbackClaim]) -> list[str]:
    """Return the types of the callbacks."""
    return [claim.type for claim in claims]


def voice_with_callback(**fields: Any) -> Any:
    """Return a voice job with a callback URL."""
    return voice(callback_url=HOOK, **fields)


def deliver_all(store: JobStore, now: float = NOW) -> list[str]:
    """Deliver every callback that is or becomes due; return their types in order."""
    delivered: list[str] = []
    while claims := claim_due(store.callbacks, now):
        for claim in claims:
            assert store.callbacks.mark_delivered(claim.id, now)
            delivered.append(claim.type)
    return delivered


def retry(store: JobStore, job: Job, now: float = NOW) -> Job:
    """Queue a failed job again."""
    assert store.apply_transitions([transitions.retry(job, now, resubmit=True)], now) == [True]
    return get_job(store, job.id)


def submit_again(store: JobStore, job_id: str, now: float = NOW) -> Job:
    """Submit a retried job; it is pending then."""
    store.admit(now)
    claim_admitted(store, job_id, now)
    return accept_order(store, job_id, now)
