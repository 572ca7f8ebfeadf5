"""Callbacks are signed POST requests to allowed addresses, and slow receivers do not delay others."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis
from standardwebhooks import WebhookVerificationError

from tasks.callbacks.delivery import deliver
from tasks.callbacks.sender import Sender
from tests.integration.outbound.callback_worker import (
    OK,
    SECRET,
    CallbackWorker,
    Listen,
    ids,
    verified,
)
from tests.store.life import job_in_state
from tests.support.jobs import voice
from tests.support.scripted import HANG_UP, Request, always, answer
from voicequeue import State, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.domain.status import CallbackCounts
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from workers.callbacks import CALLBACKS_PER_MESSAGE, callback_dispatcher

# ── signed requests ───────────────────────────────────────────────────────────────────────────────


def test_a_receiver_verifies_the_request_with_the_library_of_the_spec(worker: CallbackWorker, listen: Listen) -> None:
    """One POST with a JSON body and the three headers; then no callback is left."""
    receiver = listen(OK)
    job = worker.settle(f"{receiver.url}/hooks?a=b", metadata={"order": "17"}, name="Grüße")

    assert worker.run() == 1

    [request] = receiver.requests
    assert (request.method, request.path) == ("POST", "/hooks?a=b")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("voicequeue/")
    assert request.headers["webhook-id"] == job.callback_id
    assert 0 <= int(request.headers["webhook-timestamp"]) - int(worker.clock.now) < 60
    payload = verified(request)
    assert (payload["type"], payload["data"]) == ("job.succeeded", job.as_dict())
    assert worker.counts() == CallbackCounts(delivered=1)


def test_an_altered_or_foreign_request_is_not_verified(worker: CallbackWorker, listen: Listen) -> None:
    """Body, id and timestamp are signed, with the secret of the receiver."""
    receiver = listen(OK)
    worker.settle(receiver.url)
    worker.run()

    [request] = receiver.requests
    altered = [
        replace(request, body=request.body.replace(b"succeeded", b"cancelled")),
        replace(request, headers={**request.headers, "webhook-id": "other"}),
        replace(
            request,
            headers={**request.headers, "webhook-timestamp": str(int(request.headers["webhook-timestamp"]) + 1)},
        ),
    ]
    for altered_request in altered:
        with pytest.raises(WebhookVerificationError):
            verified(altered_request)
    with pytest.raises(WebhookVerificationError):
        verified(request, signatures.callback_secret("another secret"))


def test_both_secrets_are_valid_while_they_are_rotated(worker: CallbackWorker, listen: Listen) -> None:
    """Both sign, and a receiver with either one verifies."""
    receiver, new = listen(OK), signatures.callback_secret("a new secret")
    worker.settle(receiver.url)

    worker.with_roots(new, SECRET).run()

    [request] = receiver.requests
    assert verified(request, new) == verified(request, SECRET)


def test_without_a_secret_nothing_is_sent_and_the_reason_names_the_settings(
    worker: CallbackWorker, listen: Listen
) -> None:
    """The callback is retried, so that it is delivered once a secret is set."""
    receiver = listen(OK)
    worker.settle(receiver.url)

    worker.with_roots().run()

    assert receiver.accepted == 0
    [pending] = worker.store.callbacks.pending()
    assert pending.last_error == "callbacks cannot be signed: set VOICEQUEUE_CALLBACK_SECRET or VOICEQUEUE_SECRET"


def test_a_batch_callback_goes_to_the_url_of_the_batch(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue
) -> None:
    """The callbacks of its jobs go to their own URLs."""
    of_batch, of_job = listen(OK), listen(OK)
    queue.set_batch_callback("b", of_batch.url)
    worker.settle(of_job.url, State.FAILED, batch="b")
    worker.run()

    assert [verified(request)["type"] for request in of_batch.requests] == ["batch.settled"]
    assert [verified(request)["type"] for request in of_job.requests] == ["job.failed"]
    assert verified(of_batch.requests[0])["data"]["states"]["failed"] == 1


# ── allowed addresses ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1"])
def test_a_url_of_this_machine_is_refused_without_a_retry(worker: CallbackWorker, listen: Listen, host: str) -> None:
    """The callback is undelivered, and its reason names the setting that would allow the address."""
    receiver = listen(OK)
    worker.settle(receiver.url.replace("127.0.0.1", host) + "/private?token=x")
    sender = Sender(allowed=AddressPolicy.parse("", setting="VOICEQUEUE_CALLBACK_ALLOWED_HOSTS"), times=HttpTimeouts())

    worker.with_sender(sender).run()

    [undelivered] = worker.undelivered()
    assert "to a loopback address, which VOICEQUEUE_CALLBACK_ALLOWED_HOSTS does not" in undelivered.last_error
    assert receiver.accepted == 0


def test_redirects_are_not_followed(worker: CallbackWorker, listen: Listen) -> None:
    """A receiver cannot redirect the request to this machine, nor to any other."""
    inside = listen(OK)
    receiver = listen(always(answer("", status="307 Away", headers=[f"Location: {inside.url}/"])))
    worker.settle(receiver.url)

    worker.run()

    assert (len(receiver.requests), inside.accepted) == (1, 0)
    [pending] = worker.store.callbacks.pending()
    assert pending.last_error == "HTTP 307: redirects are not followed"


def test_undeliverable_callbacks_do_not_affect_others_of_their_chunk(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, valkey_url: str, prefix: str
) -> None:
    """Unreadable records and a batch without a URL are given up; the rest is delivered."""
    receiver = listen(OK)
    jobs = [worker.settle(receiver.url, key=str(n)) for n in range(3)]
    queue.set_batch_callback("b", receiver.url)
    job_in_state(worker.store, State.CANCELLED, voice(batch="b"), worker.clock.now)
    queue.set_batch_callback("b", None)
    with connect(valkey_url) as redis:
        redis.hset(f"{{{prefix}}}:job:{jobs[0].id}", "spec", '{"callback_url": 5}')
        redis.hset(f"{{{prefix}}}:callback:{jobs[1].callback_id}", "snapshot", "{}")

    worker.run()

    assert ids(receiver) == [jobs[2].callback_id]
    unreadable = "this release cannot read the job's record"
    no_url = "the job was purged, or its batch or budget has no callback URL any longer"
    assert sorted(callback.last_error for callback in worker.undelivered()) == [no_url, unreadable, unreadable]


# ── hosts ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_failing_receiver_does_not_affect_others_of_its_chunk(worker: CallbackWorker, listen: Listen) -> None:
    """One sends byte by byte, one hangs up, one is unreachable; all are attempted, and the good one gets everything."""

    def dripping(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Drip: "
        for _number in range(40):
            time.sleep(0.05)
            yield b"x"

    good, bad = listen(OK), [listen(dripping), listen(always(HANG_UP))]
    for number in range(4):
        for receiver in (*bad, good):
            worker.settle(receiver.url, key=f"{receiver.url}-{number}")
        worker.settle("http://127.0.0.1:1/", key=f"unreachable-{number}")

    started = time.monotonic()
    deliver(worker.services, worker.services.callbacks.lease(worker.clock.now, lease_s=60))

    assert len(good.requests) == 4
    assert time.monotonic() - started < 4
    assert worker.counts().delivered == 4
    reasons = {re.sub(r": \w+$", "", callback.last_error) for callback in worker.store.callbacks.pending()}
    assert reasons >= {"no answer within 0.5 s", "no answer", "no connection"}


def test_an_unreachable_host_is_not_tried_for_each_of_its_callbacks(worker: CallbackWorker, listen: Listen) -> None:
    """After three failures the others are postponed without an attempt; all arrive when the host is back."""
    is_down = [True]
    receiver = listen(lambda _: [HANG_UP if is_down[0] else answer({})])
    for number in range(50):
        worker.settle(receiver.url, key=str(number))

    worker.run()

    assert len(receiver.requests) <= 4
    is_down[0] = False
    while worker.counts().pending:
        worker.run_when_due()
    assert worker.counts().delivered == 50


def test_a_namespace_that_makes_a_host_fail_does_not_delay_the_callbacks_of_another(
    worker: CallbackWorker, listen: Listen, redis: Redis, prefix: str
) -> None:
    """It may name any path at any host; the failures count for its own callbacks only."""
    receiver = listen(lambda request: [answer("", status="503 Busy") if "/bad" in request.path else answer({})])
    hostile, other = (JobStore(redis, prefix, namespace=name) for name in ("hostile", "shop"))
    for number in range(6):
        spec = voice(callback_url=f"{receiver.url}/bad", key=str(number))
        job_in_state(hostile, State.SUCCEEDED, spec, worker.clock.now)
    worker.run()

    job_in_state(other, State.SUCCEEDED, voice(callback_url=f"{receiver.url}/good"), worker.clock.now)
    worker.run()

    assert receiver.requests[-1].path == "/good"
    assert worker.counts().delivered == 1


# ── logs ──────────────────────────────────────────────────────────────────────────────────────────


def test_logs_name_the_callback_and_contain_neither_url_nor_secret(
    worker: CallbackWorker, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    """They have the id, the type and the reason."""
    receiver = listen(always(answer("", status="410 Gone")))
    job = worker.settle(f"{receiver.url}/hooks?token=secret")

    with caplog.at_level(logging.INFO):
        worker.run()

    refused, undelivered = caplog.messages
    assert refused == "callback refused"
    assert undelivered == "callback undelivered: HTTP 410: the receiver is gone for good"
    for record in caplog.records:
        fields = vars(record)
        assert (fields["job"], fields["callback_id"], fields["event_type"]) == (
            job.id,
            job.callback_id,
            "job.succeeded",
        )


def test_an_unexpected_error_counts_as_an_attempt(
    worker: CallbackWorker, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the callback is retried and finally given up; the host's slot is released."""
    receiver = listen(OK)
    sender = Sender(allowed=AddressPolicy.parse("", setting="S"), times=HttpTimeouts(), certificates="no such file")
    worker.settle(receiver.url)

    worker.with_sender(sender).run()

    [pending] = worker.store.callbacks.pending()
    assert (pending.attempts, pending.last_error) == (1, "a defect of voicequeue: FileNotFoundError")
    assert pending.id in {vars(record).get("callback_id") for record in caplog.records if record.exc_info}
    assert worker.services.host_limiter.try_acquire(receiver.url, worker.clock.now) is None


# ── the dispatcher ────────────────────────────────────────────────────────────────────────────────


def test_dispatchers_hand_out_due_callbacks_in_small_chunks_and_send_heartbeats(worker: CallbackWorker) -> None:
    """Each callback is in one message, even with two dispatchers."""
    messages: list[tuple[str, list[str]]] = []
    dispatchers = [
        callback_dispatcher(worker.services, lambda task, chunk: messages.append((task, chunk)), worker=name)
        for name in "ab"
    ]
    for number in range(25):
        worker.settle("http://127.0.0.1:1/", key=str(number))

    for dispatcher in dispatchers:
        dispatcher.run_once()

    assert {task for task, _ in messages} == {"callback.deliver"}
    assert [len(chunk) for _, chunk in messages] == [CALLBACKS_PER_MESSAGE, CALLBACKS_PER_MESSAGE, 5]
    assert len({callback_id for _, chunk in messages for callback_id in chunk}) == 25
    assert worker.store.callbacks.counts(worker.clock.now - 1).workers == 2
