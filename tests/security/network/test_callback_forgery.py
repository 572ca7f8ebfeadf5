"""Several apps share a queue, each with its own receiver: no app can send callbacks as the queue to another."""

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
from tasks.callbacks.signing import CallbackSigner
from tasks.enqueue import enqueue_or_reject
from tests.store.conftest import Command
from tests.store.life import fail_job, get_job
from tests.support.jobs import voice
from tests.support.scripted import Request, ScriptedServer, always, answer
from tests.web.conftest import Gateway
from voicequeue import FailureCode, Job, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.net.http_types import HttpTimeouts, Target
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.shared_gateway

COMMON = "a secret of 32 characters or more"
ROOT = signatures.callback_secret(COMMON)
ROWS = {"Content-Type": "application/x-ndjson"}
AUDIO = "https://recordings.example/ana.wav"


@pytest.fixture
def listen() -> Iterator[Callable[[], ScriptedServer]]:
    """Yield a function that starts receivers."""
    with ExitStack() as resources:
        yield lambda: resources.enter_context(ScriptedServer(always(answer({}))))


@pytest.fixture
def secret_of(command: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedServer], Webhook]:
    """Return a function that verifies with the secret that an operator gives to a receiver."""
    monkeypatch.setenv("VOICEQUEUE_SECRET", COMMON)
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", "")
    return lambda receiver: Webhook(command("callbacks", "--secret", f"{receiver.url}/hooks").out.strip())


def deliver(store: JobStore, *secrets: str) -> None:
    """Deliver every callback that is due."""
    sender = Sender(allowed=AddressPolicy.parse("127.0.0.1", setting="S"), times=HttpTimeouts(5.0, 5.0))
    signer = CallbackSigner(secrets or [ROOT], store.callback_secrets)
    now = time.time()
    ids = store.callbacks.lease(now, lease_s=60)
    for call in store.callbacks.claim(ids, now, lease_s=60):
        target = Target.parse(call.url())
        assert sender.send(call, target, signer.secrets(call, target, now), now) == Delivered()
        store.callbacks.mark_delivered(call.id, now)


def fail(store: JobStore, job_id: str) -> Job:
    """Settle a queued job as failed."""
    return fail_job(store, get_job(store, job_id), FailureCode.EXPIRED, time.time())


def data(request: Request) -> Any:
    """Return the data of a callback."""
    return json.loads(request.body)["data"]


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────


def test_each_receiver_has_its_own_secret(
    store: JobStore,
    queue: VoiceQueue,
    listen: Callable[[], ScriptedServer],
    secret_of: Callable[[ScriptedServer], Webhook],
) -> None:
    """The secret of one is invalid for the callbacks of another."""
    ours, theirs = listen(), listen()
    for receiver in (ours, theirs):
        fail(store, queue.enqueue(voice(callback_url=f"{receiver.url}/hooks")).id)
    deliver(store)

    for receiver, other in ((ours, theirs), (theirs, ours)):
        [received] = receiver.requests
        assert secret_of(receiver).verify(received.body, received.headers)
        with pytest.raises(WebhookVerificationError):
            secret_of(other).verify(received.body, received.headers)


def test_a_receiver_cannot_forward_callbacks_to_another(
    store: JobStore,
    queue: VoiceQueue,
    listen: Callable[[], ScriptedServer],
    secret_of: Callable[[ScriptedServer], Webhook],
) -> None:
    """Neither the original bytes, nor its own signature."""
    attacker, victim = listen(), listen()
    fail(store, queue.enqueue(voice(callback_url=attacker.url)).id)
    deliver(store)

    [received] = attacker.requests
    signature = secret_of(attacker).sign(received.headers["webhook-id"], datetime.now(UTC), received.body.decode())
    for headers in (received.headers, {**received.headers, "webhook-signature": signature}):
        with pytest.raises(WebhookVerificationError):
            secret_of(victim).verify(received.body, headers)


def test_another_port_scheme_or_host_is_another_receiver() -> None:
    """Another path of the same server is the same receiver."""
    urls = (
        "https://a.example/",
        "http://a.example/",
        "https://a.example:8443/",
        "https://b.example/",
        "https://[::1]/",
    )
    secrets = {signatures.receiver_secret(ROOT, Target.parse(url).origin) for url in urls}

    assert len(secrets) == len(urls)
    assert signatures.receiver_secret(ROOT, Target.parse("https://u:p@A.example:443/x?y").origin) in secrets


def test_a_configured_callback_secret_is_no_receiver_secret_either(
    store: JobStore,
    queue: VoiceQueue,
    listen: Callable[[], ScriptedServer],
    secret_of: Callable[[ScriptedServer], Webhook],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """During a rotation each receiver has two secrets of its own; the root secrets sign nothing."""
    ours, theirs = listen(), listen()
    new, old = (f"whsec_{word * 4}" for word in ("bmV3IG9u", "b2xkIG9u"))
    for receiver in (ours, theirs):
        fail(store, queue.enqueue(voice(callback_url=receiver.url)).id)
    deliver(store, new, old)

    for receiver, other in ((ours, theirs), (theirs, ours)):
        [received] = receiver.requests
        for secret in (new, old):
            monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", secret)
            assert secret_of(receiver).verify(received.body, received.headers)
            for wrong in (secret_of(other), Webhook(secret)):
                with pytest.raises(WebhookVerificationError):
                    wrong.verify(received.body, received.headers)


# ── sources ───────────────────────────────────────────────────────────────────────────────────────


def test_a_callback_to_another_apps_receiver_names_the_source_of_the_job(
    store: JobStore, gateway: Gateway, listen: Callable[[], ScriptedServer]
) -> None:
    """It has a valid signature, because the queue sends it; it names the key that enqueued the job, and the batch."""
    victim = listen()
    for key in ("all", "enqueue"):
        order = {"audio_url": AUDIO, "callback_url": victim.url, "batch": "spring", "key": f"of {key}"}
        fail(store, gateway.post("/v1/jobs", order, key=key).json()["id"])
    deliver(store)

    sources = {data(request)["key"]: (data(request)["source"], data(request)["batch"]) for request in victim.requests}
    assert sources == {"of all": ("http:all", "spring"), "of enqueue": ("http:enqueue", "spring")}


def test_a_batch_callback_names_the_key_that_set_its_url(
    store: JobStore, gateway: Gateway, queue: VoiceQueue, listen: Callable[[], ScriptedServer]
) -> None:
    """Not the keys that enqueued the jobs."""
    victim = listen()
    queue.set_batch_callback("spring", "https://other.example")
    assert gateway("PATCH", "/v1/batches/spring", json={"callback_url": victim.url}, key="enqueue").status_code == 200
    fail(store, gateway.post("/v1/jobs", {"audio_url": AUDIO, "batch": "spring"}).json()["id"])
    deliver(store)

    [received] = victim.requests
    assert (data(received)["name"], data(received)["source"]) == ("spring", "http:enqueue")


def test_no_field_of_a_job_sets_its_source(gateway: Gateway, queue: VoiceQueue) -> None:
    """Neither over HTTP, nor in a row or the query; metadata and headers are separate."""
    names = ("origin", "source", "caller", "app")
    for field in names:
        order = {"audio_url": AUDIO, field: "http:victim"}
        assert gateway.post("/v1/jobs", order, key="enqueue").status_code == 422
        assert gateway.post(f"/v1/jobs?{field}=http:victim", {"audio_url": AUDIO}, key="enqueue").status_code == 422
        row = json.dumps(order)
        lines = gateway("POST", "/v1/batches/b/jobs", data=row, key="enqueue", headers=ROWS).text.splitlines()
        assert json.loads(lines[0])["outcome"] == "rejected"

    meta = {"audio_url": AUDIO, "metadata": dict.fromkeys(names, "http:victim"), "name": "http:victim"}
    headers = dict.fromkeys((*names[1:], *(f"X-{name}" for name in names)), "http:victim")
    enqueued = gateway.post("/v1/jobs", meta, key="enqueue", headers=headers).json()
    assert enqueued["source"] == "http:enqueue"
    assert [job.source for job in queue.jobs()] == ["http:enqueue"]


def test_every_entry_records_the_source(
    store: JobStore, gateway: Gateway, command: Command, valkey_url: str, prefix: str
) -> None:
    """HTTP by its key, single jobs and rows; messages; the command; the library, with the app's name."""
    row = json.dumps({"audio_url": AUDIO})
    rows = gateway("POST", "/v1/batches/b/jobs", data=row, key="enqueue", headers=ROWS).text.splitlines()
    with VoiceQueue(valkey_url, prefix=prefix, app="shop") as shop, VoiceQueue(valkey_url, prefix=prefix) as other:
        secrets = {
            "http:all": gateway.post("/v1/jobs", {"audio_url": AUDIO}).json()["id"],
            "http:enqueue": json.loads(rows[0])["id"],
            "message": enqueue_or_reject(store, [{"audio_url": AUDIO}], {}, message_id="m", now=time.time()),
            "cli": command("enqueue", "--audio-url", AUDIO, "--json").json()["id"],
            "library:shop": shop.enqueue({"audio_url": AUDIO}).id,
            "library": other.enqueue({"audio_url": AUDIO}).id,
        }

    assert {gateway.get(f"/v1/jobs/{job_id}")["source"]: job_id for job_id in secrets.values()} == secrets
    assert command("job", secrets["library:shop"], "--json").json()["source"] == "library:shop"
    assert "library:shop" in command("job", secrets["library:shop"]).out


def test_a_source_never_changes(gateway: Gateway, queue: VoiceQueue) -> None:
    """The same job, sent again through another entry, keeps its source."""
    order = {"audio_url": AUDIO, "key": "k"}
    first = gateway.post("/v1/jobs", order, key="enqueue")
    again = gateway.post("/v1/jobs", order, key="all")

    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["source"] == queue.enqueue(order).source == "http:enqueue"


@pytest.mark.parametrize("app", ["http:victim", "a b", "-a", "ä", "a" * 65, "a\n"])
def test_an_app_cannot_take_the_name_of_another_source(valkey_url: str, app: str) -> None:
    """Names follow one pattern."""
    with pytest.raises(ValueError, match="the name of an app must be"):
        VoiceQueue(valkey_url, app=app)
