"""Failed callbacks are retried with the same id and body, in order, until their retry period is over."""

from __future__ import annotations

import pytest

from tasks.callbacks.sender import Delivered, PermanentFailure, SendResult, TemporaryFailure, classify
from tests.integration.outbound.callback_worker import (
    OK,
    CallbackWorker,
    Listen,
    ids,
    verified,
)
from tests.store.life import apply_transition, fail_job
from tests.support.scripted import HANG_UP, always, answer
from voicequeue import FailureCode, State
from voicequeue.domain.status import CallbackCounts
from voicequeue.net.http_types import Target


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, Delivered()),
        (204, Delivered()),
        (299, Delivered()),
        (301, TemporaryFailure("HTTP 301: redirects are not followed")),
        (400, TemporaryFailure("HTTP 400")),
        (404, TemporaryFailure("HTTP 404")),
        (410, PermanentFailure("HTTP 410: the receiver is gone for good")),
        (500, TemporaryFailure("HTTP 500")),
        (429, TemporaryFailure("HTTP 429", is_host_available=False, retry_after_s=7)),
        (503, TemporaryFailure("HTTP 503", is_host_available=False, retry_after_s=7)),
    ],
)
def test_the_status_decides_between_delivered_retry_and_refused(status: int, result: SendResult) -> None:
    """2xx is delivered, 410 is final, and anything else is retried, no earlier than Retry-After."""
    assert classify(status, 7 if status in {429, 503} else None) == result


def test_every_attempt_has_the_same_id_and_body(worker: CallbackWorker, listen: Listen) -> None:
    """Each is signed with the time of this host, which receivers compare with their own clocks."""
    answers = iter([answer("", status="500 Oh"), answer("", status="404 No"), HANG_UP, answer({})])
    receiver = listen(lambda _: [next(answers)])
    worker.settle(receiver.url)

    worker.run()
    for _ in range(3):
        worker.run_when_due()

    assert len(set(ids(receiver))) == 1
    assert len({request.body for request in receiver.requests}) == 1
    assert {verified(request)["type"] for request in receiver.requests} == {"job.succeeded"}
    assert worker.counts() == CallbackCounts(delivered=1)


def test_a_receiver_that_was_down_for_hours_gets_every_callback_in_order(
    worker: CallbackWorker, listen: Listen
) -> None:
    """Meanwhile two jobs failed, were retried and failed again."""
    is_down = [True]
    receiver = listen(lambda _: [answer("", status="503 Away") if is_down[0] else answer({})])
    jobs = [worker.settle(f"{receiver.url}/{name}", State.FAILED, key=name) for name in "ab"]
    while worker.clock.now < jobs[0].created_at + 5 * 3_600:
        worker.run_when_due()
        for job in worker.store.get([job.id for job in jobs]):
            assert job is not None
            if job.version < 20:
                apply_transition(worker.store, job, State.QUEUED, worker.clock.now)
                [queued] = worker.store.get([job.id])
                assert queued is not None
                fail_job(worker.store, queued, FailureCode.EXPIRED, worker.clock.now)
    written = worker.counts().pending
    assert len(receiver.requests) < 100
    is_down[0], attempts = False, len(receiver.requests)

    while worker.counts().pending:
        worker.run_when_due()

    requests = receiver.requests[attempts:]
    assert len({request.headers["webhook-id"] for request in requests}) == len(requests) == written
    for job in jobs:
        timestamps = [verified(request)["timestamp"] for request in requests if request.path[1:] == job.spec.key]
        assert timestamps == sorted(timestamps)
        assert len(timestamps) >= 5


def test_a_callback_is_given_up_after_a_day_and_can_be_redelivered(worker: CallbackWorker, listen: Listen) -> None:
    """It is kept with the reason; redelivery starts a new retry period."""
    is_down = [True]
    receiver = listen(lambda _: [answer("", status="500 Oh") if is_down[0] else answer({})])
    job = worker.settle(receiver.url)
    started = worker.clock.now
    worker.run()
    while worker.counts().pending:
        worker.run_when_due()

    [undelivered] = worker.undelivered()
    assert (undelivered.id, undelivered.last_error) == (job.callback_id, "HTTP 500")
    assert undelivered.undelivered_at == started + 86_400
    assert undelivered.attempts == len(receiver.requests) > 20
    is_down[0] = False
    worker.clock.now += 1_000
    assert worker.store.callbacks.redeliver([undelivered.id], worker.clock.now) == [True]
    worker.run()
    assert set(ids(receiver)) == {job.callback_id}
    assert worker.counts() == CallbackCounts(delivered=1)


def test_the_next_attempt_is_not_before_retry_after(worker: CallbackWorker, listen: Listen) -> None:
    """Retry-After is in seconds."""
    receiver = listen(always(answer("", status="429 Slow down", headers=["Retry-After: 90"])))
    worker.settle(receiver.url)
    worker.run()

    [pending] = worker.store.callbacks.pending()
    assert pending.due_at == worker.clock.now + 90


def test_a_worker_that_is_killed_during_delivery_causes_one_duplicate_only(
    worker: CallbackWorker, listen: Listen
) -> None:
    """The callback was sent but not recorded: it is sent again with the same id when the claim expires."""
    receiver = listen(OK)
    job = worker.settle(receiver.url)
    callback_ids = worker.services.callbacks.lease(worker.clock.now, lease_s=60)
    [claim] = worker.services.callbacks.claim(callback_ids, worker.clock.now, lease_s=60)
    target = Target.parse(claim.url())
    secrets = worker.services.signer.secrets(claim, target, worker.clock.now)
    assert worker.services.sender.send(claim, target, secrets, worker.clock.now) == Delivered()

    assert worker.run() == 0
    worker.clock.now += 60
    assert worker.run() == 1
    assert ids(receiver) == [job.callback_id] * 2
