"""Callbacks of an API key are signed with its own secret, which Redis holds encrypted."""

from __future__ import annotations

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.integration.outbound.callback_worker import (
    OK,
    SECRET,
    CallbackWorker,
    Listen,
    verified,
)
from tests.store.life import apply_transition, dump_keys
from tests.support.jobs import voice
from tests.support.scripted import Request, ScriptedServer
from voicequeue import State, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.auth.callback_secrets import new_secret
from voicequeue.client.queue import with_source
from voicequeue.storage.job_store import JobStore

NEW_ROOT = signatures.callback_secret("a new secret")


@pytest.fixture
def of_shop(queue: VoiceQueue) -> VoiceQueue:
    """Return the queue as the gateway uses it for the API key `shop`."""
    return with_source(queue, "http:shop")


def settle(worker: CallbackWorker, queue: VoiceQueue, url: str | None, batch: str | None = None) -> None:
    """Enqueue a job with this callback URL, and let it fail."""
    job = queue.enqueue(voice(callback_url=url, batch=batch))
    to = State.CANCELLED if url is None else State.FAILED
    apply_transition(worker.store, job, to, worker.clock.now)


def set_secret(queue: VoiceQueue, name: str = "shop", *, overlap_s: float = 0.0, root: str = SECRET) -> str:
    """Create or replace the callback secret of an API key, and return it."""
    secret, token = new_secret([root], name)
    queue.set_callback_secret(name, token, overlap_s=overlap_s)
    return secret


def is_signed(request: Request, secret: str) -> bool:
    """Return whether the library of the Standard Webhooks specification accepts the request."""
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


def signatures_of(receiver: ScriptedServer) -> list[str]:
    """Return the signatures of the latest request."""
    return receiver.requests[-1].headers["webhook-signature"].split(" ")


def test_callbacks_of_a_key_are_signed_with_its_secret_only(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """Those of other keys and of other interfaces are signed with the secret of their receiver."""
    receiver, secret = listen(OK), set_secret(queue)

    for enqueueing in (of_shop, with_source(queue, "http:blog"), queue, with_source(queue, "library:shop")):
        settle(worker, enqueueing, receiver.url)
        worker.run()

    of_key, *others = receiver.requests
    assert is_signed(of_key, secret)
    with pytest.raises(WebhookVerificationError):
        verified(of_key)
    assert [is_signed(request, secret) for request in others] == [False] * 3
    assert [verified(request)["data"]["source"] for request in others] == ["http:blog", "library", "library:shop"]


def test_the_callback_of_a_batch_is_signed_with_the_secret_of_the_key_that_set_its_url(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """Also if its jobs are those of other callers."""
    receiver, secret = listen(OK), set_secret(queue)
    of_shop.set_batch_callback("b", receiver.url)
    settle(worker, queue, None, batch="b")

    worker.run()

    [request] = receiver.requests
    assert is_signed(request, secret)


def test_during_the_overlap_callbacks_carry_both_signatures(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """A receiver with either secret accepts them; after the overlap only the new one signs."""
    receiver = listen(OK)
    first = set_secret(queue)
    second = set_secret(queue, overlap_s=60)
    worker.clock.now = queue._now()
    settle(worker, of_shop, receiver.url)
    worker.run()
    assert len(signatures_of(receiver)) == 2
    assert is_signed(receiver.requests[-1], first)
    assert is_signed(receiver.requests[-1], second)

    worker.clock.now += 120
    settle(worker, of_shop, receiver.url)
    worker.run()

    assert len(signatures_of(receiver)) == 1
    assert is_signed(receiver.requests[-1], second)


def test_an_overlap_of_zero_ends_all_older_secrets(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """After a leak, no signature by a leaked secret is sent, also during an earlier overlap."""
    receiver = listen(OK)
    leaked = [set_secret(queue), set_secret(queue, overlap_s=3_600)]
    secret = set_secret(queue, overlap_s=0)
    settle(worker, of_shop, receiver.url)

    worker.run()

    assert len(signatures_of(receiver)) == 1
    assert is_signed(receiver.requests[-1], secret)
    assert not any(is_signed(receiver.requests[-1], old) for old in leaked)


def test_a_callback_whose_secret_cannot_be_decrypted_waits_and_is_never_sent_with_another_signature(
    worker: CallbackWorker,
    listen: Listen,
    queue: VoiceQueue,
    of_shop: VoiceQueue,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is not given up, names the key and the cure, and is sent once the secret can be decrypted."""
    receiver, secret = listen(OK), set_secret(queue)
    settle(worker, of_shop, receiver.url)
    ignorant = worker.with_roots(NEW_ROOT)

    ignorant.run()
    worker.clock.now += 2 * 86_400
    ignorant.run()

    assert receiver.accepted == 0
    assert worker.undelivered() == []
    [pending] = worker.store.callbacks.pending()
    assert "the API key shop cannot be decrypted" in pending.last_error
    assert "voicequeue keys callback-secret shop --rotate --overlap 0s" in pending.last_error
    assert "callback cannot be signed" in caplog.text
    assert secret not in caplog.text
    worker.run_when_due()
    assert is_signed(receiver.requests[-1], secret)


def test_a_stored_secret_is_of_no_use_for_another_key(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """A writer of Redis cannot have the callbacks of one key signed with the secret of another."""
    receiver = listen(OK)
    set_secret(queue, "blog")
    blog = worker.store.callback_secrets.get("blog")
    assert blog is not None
    worker.store.callback_secrets.put("shop", blog, None)
    settle(worker, of_shop, receiver.url)

    worker.run()

    assert receiver.accepted == 0


def test_a_new_root_secret_encrypts_stored_secrets_again(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """Then the old root secret can be removed, also during the overlap of a replaced secret."""
    receiver = listen(OK)
    first, second = set_secret(queue), set_secret(queue, overlap_s=10**6)
    rotating = worker.with_roots(NEW_ROOT, SECRET)

    assert rotating.services.signer.encrypt_again() == 1
    assert rotating.services.signer.encrypt_again() == 0

    worker.clock.now = queue._now()
    settle(worker, of_shop, receiver.url)
    worker.with_roots(NEW_ROOT).run()
    assert is_signed(receiver.requests[-1], first)
    assert is_signed(receiver.requests[-1], second)


def test_after_its_removal_the_secret_of_the_receiver_signs(
    worker: CallbackWorker, listen: Listen, queue: VoiceQueue, of_shop: VoiceQueue
) -> None:
    """Also callbacks that were pending."""
    receiver, _ = listen(OK), set_secret(queue)
    settle(worker, of_shop, receiver.url)

    assert queue.remove_callback_secret("shop")
    assert not queue.remove_callback_secret("shop")
    worker.run()

    assert verified(receiver.requests[-1])["data"]["source"] == "http:shop"


def test_redis_holds_no_secret_in_clear(store: JobStore, queue: VoiceQueue) -> None:
    """Neither its text nor its bytes, nor the audit log, nor another key's cipher text for the same secret."""
    secret = set_secret(queue)

    dump = repr(dump_keys(store._redis, store._space.prefix))

    assert "callback_secrets" in dump
    assert secret.removeprefix("whsec_") not in dump


def test_each_callback_names_its_namespace(
    worker: CallbackWorker, listen: Listen, valkey_url: str, prefix: str
) -> None:
    """Those of a job and those of a batch, whose names are without the prefix."""
    receiver = listen(OK)
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as queue:
        queue.set_batch_callback("b", receiver.url)
        settle(worker, queue, receiver.url, batch="b")

    worker.run()

    payloads = {(payload := verified(request))["type"]: payload["data"] for request in receiver.requests}
    assert (payloads["job.failed"]["namespace"], payloads["job.failed"]["batch"]) == ("shop", "b")
    assert (payloads["batch.settled"]["namespace"], payloads["batch.settled"]["name"]) == ("shop", "b")
