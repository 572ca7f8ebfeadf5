"""Several apps share a queue, and each has a receiver: none can speak for the queue to another one's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tasks.callbacks.sender import Delivered, Sender
from tasks.enqueue import take
from tests.store.conftest import Command
from tests.store.life import failed, one
from tests.support.jobs import voice
from tests.support.scripted import Request, Scripted, answer, one_answer
from tests.web.conftest import Gateway
from voicequeue import Code, Job, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.net.address_policy import Allowed
from voicequeue.net.http_client import Target, Times
from voicequeue.storage.job_store import Store

COMMON = "a secret of 32 characters or more"
ROOT = signatures.callback_secret(COMMON)
ROWS = {"Content-Type": "application/x-ndjson"}
AUDIO = "https://recordings.example/ana.wav"


@pytest.fixture
def listen() -> Iterator[Callable[[], Scripted]]:
    """Starts receivers."""
    with ExitStack() as standing:
        yield lambda: standing.enter_context(Scripted(one_answer(answer({}))))


@pytest.fixture
def secret_of(command: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scripted], Webhook]:
    """What an operator gives to a receiver, in the library of the specification."""
    monkeypatch.setenv("VOICEQUEUE_SECRET", COMMON)
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", "")
    return lambda receiver: Webhook(command("callbacks", "--secret", f"{receiver.url}/hooks").out.strip())


def deliver(store: Store, *secrets: str) -> None:
    """Send every callback that is due."""
    sender = Sender(secrets or [ROOT], allowed=Allowed.of("127.0.0.1", setting="S"), times=Times(5.0, 5.0))
    now = time.time()
    ids = store.callbacks.hand_out(now, patience=60)
    for call in store.callbacks.claim(ids, now, lease=60):
        assert sender.send(call, Target.of(call.url()), now) == Delivered()
        store.callbacks.delivered(call.id, now)


def fail(store: Store, job_id: str) -> Job:
    """Settle a job that is queued."""
    return failed(store, one(store, job_id), Code.EXPIRED, time.time())


def data(request: Request) -> Any:
    """What a callback tells."""
    return json.loads(request.body)["data"]


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────


def test_each_receiver_verifies_with_a_secret_of_its_own(
    store: Store, queue: VoiceQueue, listen: Callable[[], Scripted], secret_of: Callable[[Scripted], Webhook]
) -> None:
    """The secret of one holds for nothing that another gets."""
    ours, theirs = listen(), listen()
    for receiver in (ours, theirs):
        fail(store, queue.enqueue(voice(callback_url=f"{receiver.url}/hooks")).id)
    deliver(store)

    for receiver, other in ((ours, theirs), (theirs, ours)):
        [came] = receiver.requests
        assert secret_of(receiver).verify(came.body, came.headers)
        with pytest.raises(WebhookVerificationError):
            secret_of(other).verify(came.body, came.headers)


def test_a_receiver_can_pass_nothing_on_to_another(
    store: Store, queue: VoiceQueue, listen: Callable[[], Scripted], secret_of: Callable[[Scripted], Webhook]
) -> None:
    """Neither what it got, byte for byte, nor what it signs itself."""
    attacker, victim = listen(), listen()
    fail(store, queue.enqueue(voice(callback_url=attacker.url)).id)
    deliver(store)

    [came] = attacker.requests
    signature = secret_of(attacker).sign(came.headers["webhook-id"], datetime.now(UTC), came.body.decode())
    for headers in (came.headers, {**came.headers, "webhook-signature": signature}):
        with pytest.raises(WebhookVerificationError):
            secret_of(victim).verify(came.body, headers)


def test_another_port_scheme_or_host_is_another_receiver() -> None:
    """And another path of the same server is the same one."""
    urls = (
        "https://a.example/",
        "http://a.example/",
        "https://a.example:8443/",
        "https://b.example/",
        "https://[::1]/",
    )
    found = {signatures.receiver_secret(ROOT, Target.of(url).site) for url in urls}

    assert len(found) == len(urls)
    assert signatures.receiver_secret(ROOT, Target.of("https://u:p@A.example:443/x?y").site) in found


def test_a_secret_that_is_set_for_callbacks_is_no_receivers_either(
    store: Store,
    queue: VoiceQueue,
    listen: Callable[[], Scripted],
    secret_of: Callable[[Scripted], Webhook],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is changed, each receiver has two of its own; what they follow from signs nothing."""
    ours, theirs = listen(), listen()
    new, old = (f"whsec_{word * 4}" for word in ("bmV3IG9u", "b2xkIG9u"))
    for receiver in (ours, theirs):
        fail(store, queue.enqueue(voice(callback_url=receiver.url)).id)
    deliver(store, new, old)

    for receiver, other in ((ours, theirs), (theirs, ours)):
        [came] = receiver.requests
        for secret in (new, old):
            monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", secret)
            assert secret_of(receiver).verify(came.body, came.headers)
            for wrong in (secret_of(other), Webhook(secret)):
                with pytest.raises(WebhookVerificationError):
                    wrong.verify(came.body, came.headers)


# ── origins ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_names_another_apps_receiver_says_whose_it_is(
    store: Store, gateway: Gateway, listen: Callable[[], Scripted]
) -> None:
    """Its signature holds, for we send it; the key that brought it is told, with its batch."""
    victim = listen()
    for key in ("all", "enqueue"):
        order = {"audio_url": AUDIO, "callback_url": victim.url, "batch": "spring", "key": f"of {key}"}
        fail(store, gateway.post("/v1/jobs", order, key=key).json()["id"])
    deliver(store)

    told = {data(request)["key"]: (data(request)["origin"], data(request)["batch"]) for request in victim.requests}
    assert told == {"of all": ("http:all", "spring"), "of enqueue": ("http:enqueue", "spring")}


def test_a_batch_whose_end_is_told_elsewhere_says_who_wanted_that(
    store: Store, gateway: Gateway, queue: VoiceQueue, listen: Callable[[], Scripted]
) -> None:
    """The key that set the URL, not those that brought the jobs."""
    victim = listen()
    queue.call_back_batch("spring", "https://other.example")
    assert gateway("PATCH", "/v1/batches/spring", json={"callback_url": victim.url}, key="enqueue").status_code == 204
    fail(store, gateway.post("/v1/jobs", {"audio_url": AUDIO, "batch": "spring"}).json()["id"])
    deliver(store)

    [came] = victim.requests
    assert (data(came)["batch"], data(came)["origin"]) == ("spring", "http:enqueue")


def test_no_field_of_a_job_chooses_its_origin(gateway: Gateway, queue: VoiceQueue) -> None:
    """Not over HTTP, in a row or in the query; metadata and headers are something else."""
    names = ("origin", "who", "app", "door")
    for field in names:
        order = {"audio_url": AUDIO, field: "http:victim"}
        assert gateway.post("/v1/jobs", order, key="enqueue").status_code == 422
        assert gateway.post(f"/v1/jobs?{field}=http:victim", {"audio_url": AUDIO}, key="enqueue").status_code == 422
        row = json.dumps(order)
        lines = gateway("POST", "/v1/batches/b/jobs", data=row, key="enqueue", headers=ROWS).text.splitlines()
        assert json.loads(lines[0])["outcome"] == "rejected"

    meta = {"audio_url": AUDIO, "metadata": dict.fromkeys(names, "http:victim"), "name": "http:victim"}
    headers = dict.fromkeys((*names[1:], *(f"X-{name}" for name in names)), "http:victim")
    placed = gateway.post("/v1/jobs", meta, key="enqueue", headers=headers).json()
    assert placed["origin"] == "http:enqueue"
    assert [job.origin for job in queue.jobs()] == ["http:enqueue"]


def test_every_door_writes_who_came_through_it(
    store: Store, gateway: Gateway, command: Command, valkey_url: str, prefix: str
) -> None:
    """HTTP by its key, one by one and in rows; messages; the command; the library, with the app's name."""
    row = json.dumps({"audio_url": AUDIO})
    rows = gateway("POST", "/v1/batches/b/jobs", data=row, key="enqueue", headers=ROWS).text.splitlines()
    with VoiceQueue(valkey_url, prefix=prefix, app="shop") as shop, VoiceQueue(valkey_url, prefix=prefix) as other:
        found = {
            "http:all": gateway.post("/v1/jobs", {"audio_url": AUDIO}).json()["id"],
            "http:enqueue": json.loads(rows[0])["id"],
            "message": take(store, [{"audio_url": AUDIO}], {}, message_id="m", now=time.time()),
            "cli": command("enqueue", "--audio-url", AUDIO, "--json").json()["id"],
            "library:shop": shop.enqueue({"audio_url": AUDIO}).id,
            "library": other.enqueue({"audio_url": AUDIO}).id,
        }

    assert {gateway.get(f"/v1/jobs/{job_id}")["origin"]: job_id for job_id in found.values()} == found
    assert command("job", found["library:shop"], "--json").json()["origin"] == "library:shop"
    assert "library:shop" in command("job", found["library:shop"]).out


def test_an_origin_is_written_once(gateway: Gateway, queue: VoiceQueue) -> None:
    """The same job, sent again through another door, stays whose it was."""
    order = {"audio_url": AUDIO, "key": "k"}
    first = gateway.post("/v1/jobs", order, key="enqueue")
    again = gateway.post("/v1/jobs", order, key="all")

    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["origin"] == queue.enqueue(order).origin == "http:enqueue"


@pytest.mark.parametrize("app", ["http:victim", "a b", "-a", "ä", "a" * 65, "a\n"])
def test_an_app_cannot_call_itself_a_door(valkey_url: str, app: str) -> None:
    """A name is a name."""
    with pytest.raises(ValueError, match="the name of an app must be"):
        VoiceQueue(valkey_url, app=app)
