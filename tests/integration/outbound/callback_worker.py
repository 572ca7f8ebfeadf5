"""A callback worker as plain objects: a real store, real receivers, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from standardwebhooks import Webhook

from tasks.callbacks.delivery import CallbackServices, deliver
from tasks.callbacks.host_limiter import HostLimiter
from tasks.callbacks.sender import Sender
from tasks.callbacks.signing import CallbackSigner
from tests.integration.conftest import Clock
from tests.store.life import job_in_state
from tests.support.jobs import voice
from tests.support.scripted import Request, Script, ScriptedServer, always, answer
from voicequeue import Job, State
from voicequeue.auth import signatures
from voicequeue.domain.status import CallbackCounts
from voicequeue.domain.timeouts import CallbackTimeouts
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.job_store import JobStore

SECRET = signatures.callback_secret("a secret")
TIMEOUTS = CallbackTimeouts(
    backoff_initial_s=5, backoff_max_s=3_600, give_up_after_s=86_400, lease_s=60, start_window_s=10
)
OK = always(answer({}))

#: Starts a receiver that answers by the script, until the test ends.
Listen = Callable[[Script], ScriptedServer]


@dataclass(frozen=True)
class CallbackWorker:
    """One process that delivers callbacks, its store and its clock."""

    services: CallbackServices
    store: JobStore
    clock: Clock

    def run(self) -> int:
        """Hand out and deliver callbacks until none is due; return how many were handed out."""
        count = 0
        while callback_ids := self.services.callbacks.lease(self.clock.now, lease_s=TIMEOUTS.lease_s):
            deliver(self.services, callback_ids)
            count += len(callback_ids)
        return count

    def run_when_due(self) -> None:
        """Set the clock to the time when the next callback is due, and run."""
        self.clock.now = min(
            callback.due_at for callback in self.store.callbacks.pending() if callback.due_at is not None
        )
        self.run()

    def settle(self, url: str, state: State = State.SUCCEEDED, **fields: Any) -> Job:
        """Bring a job with this callback URL to the state, now."""
        return job_in_state(self.store, state, voice(callback_url=url, **fields), self.clock.now)

    def undelivered(self) -> list[Callback]:
        """Return the undelivered callbacks."""
        return list(self.store.callbacks.undelivered())

    def counts(self) -> CallbackCounts:
        """Return the numbers of callbacks."""
        return self.store.callbacks.counts(self.clock.now)

    def with_roots(self, *roots: str) -> CallbackWorker:
        """Return the same worker with other root secrets."""
        signer = CallbackSigner(roots, self.store.callback_secrets)
        return replace(self, services=replace(self.services, signer=signer))

    def with_sender(self, sender: Sender) -> CallbackWorker:
        """Return the same worker with another sender."""
        return replace(self, services=replace(self.services, sender=sender))


@contextmanager
def callback_worker(store: JobStore) -> Iterator[CallbackWorker]:
    """Build a worker that may send to this machine."""
    clock = Clock()
    allowed = AddressPolicy.parse("127.0.0.1", setting="VOICEQUEUE_CALLBACK_ALLOWED_HOSTS")
    sender = Sender(allowed=allowed, times=HttpTimeouts(0.5, 0.5))
    with ThreadPoolExecutor(8) as threads:
        services = CallbackServices(
            store.callbacks,
            store.heartbeats["callbacks"],
            store.metrics,
            CallbackSigner([SECRET], store.callback_secrets),
            sender,
            HostLimiter(),
            threads,
            TIMEOUTS,
            clock,
        )
        yield CallbackWorker(services, store, clock)


@contextmanager
def receivers() -> Iterator[Listen]:
    """Start receivers, and stop them after the block."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(ScriptedServer(script))


def verified(request: Request, root: str = SECRET) -> dict[str, Any]:
    """Verify a request with the library of the Standard Webhooks spec, as a receiver does; return its payload.

    The receiver's secret is derived from `root`.
    """
    secret = signatures.receiver_secret(root, f"http://{request.headers['host']}")
    payload: dict[str, Any] = Webhook(secret).verify(request.body, request.headers)
    return payload


def ids(receiver: ScriptedServer) -> list[str]:
    """Return the callback ids of all requests."""
    return [request.headers["webhook-id"] for request in receiver.requests]
