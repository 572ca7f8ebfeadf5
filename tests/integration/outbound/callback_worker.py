"""A callback worker as plain objects: a real store, real receivers, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from standardwebhooks import Webhook

from tasks.callbacks.delivery import CallbackServices, deliver
from tasks.callbacks.host_limiter import Hosts
from tasks.callbacks.sender import Sender
from tests.integration.conftest import Clock
from tests.store.life import brought_to
from tests.support.jobs import voice
from tests.support.scripted import Request, Script, Scripted, answer, one_answer
from voicequeue import Job, State
from voicequeue.auth import signatures
from voicequeue.domain.status import CallbackCounts
from voicequeue.domain.timeouts import CallbackPatience
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Times
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.job_store import Store

SECRET = signatures.callback_secret("a secret")
TIMEOUTS = CallbackPatience(first_s=5, most_s=3_600, for_s=86_400, lease_s=60, lane_s=10)
OK = one_answer(answer({}))

#: Starts a receiver that answers by the script, until the test ends.
Listen = Callable[[Script], Scripted]


@dataclass(frozen=True)
class CallbackWorker:
    """One process that delivers callbacks, its store and its clock."""

    services: CallbackServices
    store: Store
    clock: Clock

    def run(self) -> int:
        """Hand out and deliver callbacks until none is due; return how many were handed out."""
        count = 0
        while callback_ids := self.services.callbacks.hand_out(self.clock.now, patience=TIMEOUTS.lease_s):
            deliver(self.services, callback_ids)
            count += len(callback_ids)
        return count

    def run_when_due(self) -> None:
        """Set the clock to the time when the next callback is due, and run."""
        self.clock.now = min(callback.due for callback in self.store.callbacks.pending() if callback.due is not None)
        self.run()

    def settle(self, url: str, state: State = State.SUCCEEDED, **fields: Any) -> Job:
        """Bring a job with this callback URL to the state, now."""
        return brought_to(self.store, state, voice(callback_url=url, **fields), self.clock.now)

    def undelivered(self) -> list[Callback]:
        """Return the undelivered callbacks."""
        return list(self.store.callbacks.undelivered())

    def counts(self) -> CallbackCounts:
        """Return the numbers of callbacks."""
        return self.store.callbacks.counted(self.clock.now)

    def with_sender(self, sender: Sender) -> CallbackWorker:
        """Return the same worker with another sender."""
        return replace(self, services=replace(self.services, sender=sender))


@contextmanager
def callback_worker(store: Store) -> Iterator[CallbackWorker]:
    """Build a worker that may send to this machine."""
    clock = Clock()
    allowed = Allowed.of("127.0.0.1", setting="VOICEQUEUE_CALLBACK_ALLOW")
    sender = Sender([SECRET], allowed=allowed, times=Times(0.5, 0.5))
    with ThreadPoolExecutor(8) as threads:
        services = CallbackServices(
            store.callbacks, store.pulses["callbacks"], store.tally, sender, Hosts(), threads, TIMEOUTS, clock
        )
        yield CallbackWorker(services, store, clock)


@contextmanager
def receivers() -> Iterator[Listen]:
    """Start receivers, and stop them after the block."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(Scripted(script))


def verified(request: Request, root: str = SECRET) -> dict[str, Any]:
    """Verify a request with the library of the Standard Webhooks spec, as a receiver does; return its payload.

    The receiver's secret is derived from `root`.
    """
    secret = signatures.receiver_secret(root, f"http://{request.headers['host']}")
    payload: dict[str, Any] = Webhook(secret).verify(request.body, request.headers)
    return payload


def ids(receiver: Scripted) -> list[str]:
    """Return the callback ids of all requests."""
    return [request.headers["webhook-id"] for request in receiver.requests]
