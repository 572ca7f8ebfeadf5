"""Delivering callbacks with all that it takes: a real store, real receivers, and time that the test moves on."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tasks.callbacks.delivery import CallbackServices, deliver
from tasks.callbacks.host_limiter import Hosts
from tasks.callbacks.sender import Again, Delivered, Never, Sender, judged
from tests.integration.conftest import Clock
from tests.store.life import brought_to, failed, make
from tests.support.jobs import voice
from tests.support.scripted import HANG_UP, Request, Script, Scripted, answer, one_answer
from voicequeue import Code, Job, State, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.domain.status import CallbackCounts
from voicequeue.domain.timeouts import CallbackPatience
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Target, Times
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.job_store import Store, connect
from workers.callbacks import CHUNK, CallbackPulse

SECRET = signatures.callback_secret("a secret")
PATIENCE = CallbackPatience(first_s=5, most_s=3_600, for_s=86_400, lease_s=60, lane_s=10)
OK = one_answer(answer({}))

#: Gives a receiver that answers by that script, until the test ends.
Listen = Callable[[Script], Scripted]


@dataclass(frozen=True)
class Office:
    """One process that delivers callbacks, its store and its clock."""

    services: CallbackServices
    store: Store
    clock: Clock

    def run(self) -> int:
        """Hand out what is due, and deliver it, until nothing is; how many were handed out."""
        count = 0
        while ids := self.services.callbacks.hand_out(self.clock.now, patience=PATIENCE.lease_s):
            deliver(self.services, ids)
            count += len(ids)
        return count

    def run_when_due(self) -> None:
        """The same, once the time of the next has come."""
        self.clock.now = min(each.due for each in self.store.callbacks.pending() if each.due is not None)
        self.run()

    def settle(self, url: str, state: State = State.SUCCEEDED, **fields: Any) -> Job:
        """A job whose caller wants to be told there, and which comes to that state now."""
        return brought_to(self.store, state, voice(callback_url=url, **fields), self.clock.now)

    def undelivered(self) -> list[Callback]:
        """Those that were given up."""
        return list(self.store.callbacks.undelivered())

    def counted(self) -> CallbackCounts:
        """How many there are."""
        return self.store.callbacks.counted(self.clock.now)


@pytest.fixture
def office(store: Store) -> Iterator[Office]:
    """A process that may send to this machine."""
    clock = Clock()
    allowed = Allowed.of("127.0.0.1", setting="VOICEQUEUE_CALLBACK_ALLOW")
    sender = Sender([SECRET], allowed=allowed, times=Times(0.5, 0.5))
    with ThreadPoolExecutor(8) as threads:
        yield Office(
            CallbackServices(
                store.callbacks, store.pulses["callbacks"], store.tally, sender, Hosts(), threads, PATIENCE, clock
            ),
            store,
            clock,
        )


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Starts receivers."""
    with ExitStack() as standing:
        yield lambda script: standing.enter_context(Scripted(script))


def verified(request: Request, root: str = SECRET) -> dict[str, Any]:
    """What a receiver makes of it, with the library of the specification and its secret, which follows from `root`."""
    secret = signatures.receiver_secret(root, f"http://{request.headers['host']}")
    found: dict[str, Any] = Webhook(secret).verify(request.body, request.headers)
    return found


def ids(receiver: Scripted) -> list[str]:
    """The ids of all that came."""
    return [request.headers["webhook-id"] for request in receiver.requests]


# ── what arrives ──────────────────────────────────────────────────────────────────────────────────


def test_a_receiver_gets_what_the_specifications_library_verifies(office: Office, listen: Listen) -> None:
    """One POST: JSON, the three headers, and nothing is left to do."""
    receiver = listen(OK)
    job = office.settle(f"{receiver.url}/hooks?a=b", metadata={"order": "17"}, name="Grüße")

    assert office.run() == 1

    [came] = receiver.requests
    assert (came.method, came.path) == ("POST", "/hooks?a=b")
    assert came.headers["content-type"] == "application/json"
    assert came.headers["user-agent"].startswith("voicequeue/")
    assert came.headers["webhook-id"] == job.callback_id
    assert came.headers["webhook-timestamp"] == str(int(office.clock.now))
    told = verified(came)
    assert (told["type"], told["data"]) == ("job.succeeded", job.as_dict())
    assert office.counted() == CallbackCounts(delivered=1)


def test_what_was_altered_or_signed_by_somebody_else_is_not_verified(office: Office, listen: Listen) -> None:
    """Body, id and time are signed."""
    receiver = listen(OK)
    office.settle(receiver.url)
    office.run()

    [came] = receiver.requests
    altered = [
        replace(came, body=came.body.replace(b"succeeded", b"cancelled")),
        replace(came, headers={**came.headers, "webhook-id": "other"}),
        replace(came, headers={**came.headers, "webhook-timestamp": str(int(office.clock.now) + 1)}),
    ]
    for request in altered:
        with pytest.raises(WebhookVerificationError):
            verified(request)
    with pytest.raises(WebhookVerificationError):
        verified(came, signatures.callback_secret("another secret"))


def test_while_a_secret_is_changed_both_hold(office: Office, listen: Listen) -> None:
    """Each signs, and a receiver with either verifies."""
    receiver, new = listen(OK), signatures.callback_secret("a new secret")
    sender = Sender([new, SECRET], allowed=Allowed.of("127.0.0.1", setting="S"), times=Times())
    office.settle(receiver.url)

    replace(office, services=replace(office.services, sender=sender)).run()

    [came] = receiver.requests
    assert verified(came, new) == verified(came, SECRET)


def test_without_a_secret_nothing_is_sent_and_the_reason_says_what_to_set(office: Office, listen: Listen) -> None:
    """It is tried again: somebody may set one meanwhile."""
    receiver = listen(OK)
    sender = Sender([], allowed=Allowed.of("127.0.0.1", setting="S"), times=Times())
    office.settle(receiver.url)

    replace(office, services=replace(office.services, sender=sender)).run()

    assert receiver.accepted == 0
    [pending] = office.store.callbacks.pending()
    assert pending.reason == "nothing can be signed: set VOICEQUEUE_CALLBACK_SECRET or VOICEQUEUE_SECRET"


def test_a_batch_is_told_at_its_own_url(office: Office, listen: Listen, queue: VoiceQueue) -> None:
    """Beside what its jobs tell at theirs."""
    ours, theirs = listen(OK), listen(OK)
    queue.call_back_batch("b", ours.url)
    office.settle(theirs.url, State.FAILED, batch="b")
    office.run()

    assert [verified(each)["type"] for each in ours.requests] == ["batch.settled"]
    assert [verified(each)["type"] for each in theirs.requests] == ["job.failed"]
    assert verified(ours.requests[0])["data"]["states"]["failed"] == 1


# ── trying again ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Delivered()),
        (204, Delivered()),
        (299, Delivered()),
        (301, Again("HTTP 301: redirects are not followed")),
        (400, Again("HTTP 400")),
        (404, Again("HTTP 404")),
        (410, Never("HTTP 410: the receiver wants no more of it")),
        (500, Again("HTTP 500")),
        (429, Again("HTTP 429", host_is_there=False, after=7)),
        (503, Again("HTTP 503", host_is_there=False, after=7)),
    ],
)
def test_what_an_answer_means(status: int, expected: object) -> None:
    """2xx is delivered, 410 is final, all else may be mended."""
    assert judged(status, 7 if status in {429, 503} else None) == expected


def test_a_receiver_that_fails_gets_it_again_with_the_same_id_and_body(office: Office, listen: Listen) -> None:
    """Signed each time with this host's time, which receivers compare with theirs, and not with the queue's."""
    answers = iter([answer("", status="500 Oh"), answer("", status="404 No"), HANG_UP, answer({})])
    receiver = listen(lambda _: [next(answers)])
    office.settle(receiver.url)

    office.run()
    for _ in range(3):
        office.run_when_due()

    assert len(set(ids(receiver))) == 1
    assert len({request.body for request in receiver.requests}) == 1
    assert {verified(request)["type"] for request in receiver.requests} == {"job.succeeded"}
    assert office.counted() == CallbackCounts(delivered=1)


def test_a_receiver_that_is_down_for_hours_gets_everything_in_order(office: Office, listen: Listen) -> None:
    """Two jobs, each of which failed, was retried and failed again meanwhile."""
    is_down = [True]
    receiver = listen(lambda _: [answer("", status="503 Away") if is_down[0] else answer({})])
    jobs = [office.settle(f"{receiver.url}/{name}", State.FAILED, key=name) for name in "ab"]
    while office.clock.now < jobs[0].created_at + 5 * 3_600:
        office.run_when_due()
        for job in office.store.get([job.id for job in jobs]):
            assert job is not None
            if job.version < 20:
                make(office.store, job, State.QUEUED, office.clock.now)
                [queued] = office.store.get([job.id])
                assert queued is not None
                failed(office.store, queued, Code.EXPIRED, office.clock.now)
    written = office.counted().pending
    assert len(receiver.requests) < 100
    is_down[0], tried = False, len(receiver.requests)

    while office.counted().pending:
        office.run_when_due()

    came = receiver.requests[tried:]
    assert len({request.headers["webhook-id"] for request in came}) == len(came) == written
    for job in jobs:
        told = [verified(request)["timestamp"] for request in came if request.path[1:] == job.spec.key]
        assert told == sorted(told)
        assert len(told) >= 5


def test_a_receiver_that_never_answers_is_given_up_after_a_day_and_can_be_told_again(
    office: Office, listen: Listen
) -> None:
    """It is kept with the reason; `redeliver` begins a new day."""
    is_down = [True]
    receiver = listen(lambda _: [answer("", status="500 Oh") if is_down[0] else answer({})])
    job = office.settle(receiver.url)
    began = office.clock.now
    office.run()
    while office.counted().pending:
        office.run_when_due()

    [given_up] = office.undelivered()
    assert (given_up.id, given_up.reason, given_up.given_up_at) == (job.callback_id, "HTTP 500", began + 86_400)
    assert given_up.tries == len(receiver.requests) > 20
    is_down[0] = False
    office.clock.now += 1_000
    assert office.store.callbacks.redeliver([given_up.id], office.clock.now) == [True]
    office.run()
    assert set(ids(receiver)) == {job.callback_id}
    assert office.counted() == CallbackCounts(delivered=1)


def test_what_the_receiver_asks_for_is_waited_for(office: Office, listen: Listen) -> None:
    """`Retry-After`, in seconds."""
    receiver = listen(one_answer(answer("", status="429 Slow down", headers=["Retry-After: 90"])))
    office.settle(receiver.url)
    office.run()

    [pending] = office.store.callbacks.pending()
    assert pending.due == office.clock.now + 90


def test_a_process_that_dies_in_the_middle_costs_a_repetition_and_nothing_else(office: Office, listen: Listen) -> None:
    """It was sent, and nobody wrote it down: when the claim has run out it is sent again, with the same id."""
    receiver = listen(OK)
    job = office.settle(receiver.url)
    handed = office.services.callbacks.hand_out(office.clock.now, patience=60)
    [call] = office.services.callbacks.claim(handed, office.clock.now, lease=60)
    assert office.services.sender.send(call, Target.of(call.url()), office.clock.now) == Delivered()

    assert office.run() == 0
    office.clock.now += 60
    assert office.run() == 1
    assert ids(receiver) == [job.callback_id] * 2


# ── where it may go ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1"])
def test_a_url_that_leads_to_this_machine_is_refused_at_once(office: Office, listen: Listen, host: str) -> None:
    """And kept as undelivered, with the setting that would allow it."""
    receiver = listen(OK)
    office.settle(receiver.url.replace("127.0.0.1", host) + "/private?token=x")
    sender = Sender([SECRET], allowed=Allowed.of("", setting="VOICEQUEUE_CALLBACK_ALLOW"), times=Times())

    replace(office, services=replace(office.services, sender=sender)).run()

    [given_up] = office.undelivered()
    assert given_up.reason == "its host leads to a loopback address, which VOICEQUEUE_CALLBACK_ALLOW does not name"
    assert receiver.accepted == 0


def test_a_redirect_to_this_machine_leads_nowhere(office: Office, listen: Listen) -> None:
    """Nor does any other."""
    inside = listen(OK)
    receiver = listen(one_answer(answer("", status="307 Away", headers=[f"Location: {inside.url}/"])))
    office.settle(receiver.url)

    office.run()

    assert (len(receiver.requests), inside.accepted) == (1, 0)
    [pending] = office.store.callbacks.pending()
    assert pending.reason == "HTTP 307: redirects are not followed"


def test_what_cannot_be_read_or_has_nowhere_to_go_is_given_up(
    office: Office, listen: Listen, queue: VoiceQueue, valkey_url: str, prefix: str
) -> None:
    """The others of its chunk are delivered none the less."""
    receiver = listen(OK)
    jobs = [office.settle(receiver.url, key=str(n)) for n in range(3)]
    queue.call_back_batch("b", receiver.url)
    brought_to(office.store, State.CANCELLED, voice(batch="b"), office.clock.now)
    queue.call_back_batch("b", None)
    with connect(valkey_url) as redis:
        redis.hset(f"{{{prefix}}}:job:{jobs[0].id}", "spec", '{"callback_url": 5}')
        redis.hset(f"{{{prefix}}}:callback:{jobs[1].callback_id}", "data", "{}")

    office.run()

    assert ids(receiver) == [jobs[2].callback_id]
    cannot, gone = "this release cannot read the job's record", "the job, or the URL that its batch had, is gone"
    assert sorted(each.reason for each in office.undelivered()) == sorted([cannot, cannot, gone])


# ── among others ──────────────────────────────────────────────────────────────────────────────────


def test_one_receivers_trouble_does_not_touch_the_others_of_its_chunk(office: Office, listen: Listen) -> None:
    """One drips, one hangs up, one is dead; each is tried, and the good one has all of its own."""

    def dripping(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Drip: "
        for _number in range(40):
            time.sleep(0.05)
            yield b"x"

    good, bad = listen(OK), [listen(dripping), listen(one_answer(HANG_UP))]
    for number in range(4):
        for receiver in (*bad, good):
            office.settle(receiver.url, key=f"{receiver.url}-{number}")
        office.settle("http://127.0.0.1:1/", key=f"dead-{number}")

    began = time.monotonic()
    deliver(office.services, office.services.callbacks.hand_out(office.clock.now, patience=60))

    assert len(good.requests) == 4
    assert time.monotonic() - began < 4
    assert office.counted().delivered == 4
    assert {re.sub(r": \w+$", "", each.reason) for each in office.store.callbacks.pending()} >= {
        "no answer within 0.5 s", "no answer", "no connection",
    }  # fmt: skip


def test_a_dead_host_is_not_tried_for_each_of_its_callbacks(office: Office, listen: Listen) -> None:
    """After three failures the rest is put off untried, and all arrive when it is back."""
    is_down = [True]
    receiver = listen(lambda _: [HANG_UP if is_down[0] else answer({})])
    for number in range(50):
        office.settle(receiver.url, key=str(number))

    office.run()

    assert len(receiver.requests) <= 4
    is_down[0] = False
    while office.counted().pending:
        office.run_when_due()
    assert office.counted().delivered == 50


def test_a_defect_leaves_a_trace_without_a_secret_or_a_url(
    office: Office, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs tell the id, the kind and the reason."""
    receiver = listen(one_answer(answer("", status="410 Gone")))
    job = office.settle(f"{receiver.url}/hooks?token=secret")

    with caplog.at_level(logging.INFO):
        office.run()

    assert caplog.messages == [
        "callback refused",
        "callback undelivered: HTTP 410: the receiver wants no more of it",
    ]
    for record in caplog.records:
        about = vars(record)
        assert (about["job"], about["callback"], about["type"]) == (job.id, job.callback_id, "job.succeeded")


def test_what_nobody_has_thought_of_counts_as_a_try(
    office: Office, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, tried again, and given up in the end; its host keeps its places."""
    receiver = listen(OK)
    sender = Sender([SECRET], allowed=Allowed.of("", setting="S"), times=Times(), certificates="no such file")
    office.settle(receiver.url)

    replace(office, services=replace(office.services, sender=sender)).run()

    [pending] = office.store.callbacks.pending()
    assert (pending.tries, pending.reason) == (1, "a defect of voicequeue: FileNotFoundError")
    assert pending.id in {vars(record).get("callback") for record in caplog.records if record.exc_info}
    assert office.services.hosts.enter(receiver.url, office.clock.now) is None


# ── the pulse ─────────────────────────────────────────────────────────────────────────────────────


def test_a_pulse_hands_out_what_is_due_in_small_chunks_and_is_heard(office: Office) -> None:
    """Each callback in one message; two pulses do no harm."""
    given: list[tuple[str, list[str]]] = []
    pulses = [
        CallbackPulse(office.services, lambda task, chunk: given.append((task, chunk)), worker=name) for name in "ab"
    ]
    for number in range(25):
        office.settle("http://127.0.0.1:1/", key=str(number))

    for pulse in pulses:
        pulse.beat()

    assert {task for task, _ in given} == {"callback.deliver"}
    assert [len(chunk) for _, chunk in given] == [CHUNK, CHUNK, 5]
    assert len({each for _, chunk in given for each in chunk}) == 25
    assert office.store.callbacks.counted(office.clock.now - 1).workers == 2
