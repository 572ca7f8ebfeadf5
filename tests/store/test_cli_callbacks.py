"""The command `callbacks`: pending and undelivered callbacks, and redelivery."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, brought_to
from tests.support.jobs import voice
from voicequeue import Job, State, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.domain.job import iso
from voicequeue.storage.job_store import Store

HOOK = "https://hooks.example/voices"


def failed(store: Store, **fields: str) -> Job:
    """Return a failed job with a callback URL."""
    return brought_to(store, State.FAILED, voice(callback_url=HOOK, **fields))


def given_up(store: Store, **fields: str) -> Job:
    """Return a job whose callback was given up."""
    job = failed(store, **fields)
    assert job.callback_id
    store.callbacks.hand_out(NOW, patience=60)
    store.callbacks.claim([job.callback_id], NOW, lease=60)
    store.callbacks.give_up(job.callback_id, NOW + 1, "HTTP [500]", tried=True)
    return job


def test_the_json_of_callbacks(command: Command, store: Store) -> None:
    """Pending ones, those that were given up, and the counts."""
    lost, waits = given_up(store, batch="b"), failed(store)
    common = {"type": "job.failed", "at": iso(NOW)}

    assert command("callbacks", "--json").json() == {
        "counts": {"pending": 1, "waiting": 0, "undelivered": 1, "delivered": 0, "workers": 0},
        "pending": [
            {
                **common, "id": waits.callback_id, "job": waits.id, "batch": None, "tries": 0, "reason": None,
                "due": iso(NOW), "undelivered_at": None,
            }
        ],
        "undelivered": [
            {
                **common, "id": lost.callback_id, "job": lost.id, "batch": "b", "tries": 1, "reason": "HTTP [500]",
                "due": None, "undelivered_at": iso(NOW + 1),
            }
        ],
    }  # fmt: skip


def test_reasons_and_missing_workers_are_shown(command: Command, store: Store) -> None:
    """And the counts; the status shows them in one line."""
    job = given_up(store)
    failed(store)

    output = command("callbacks").out
    for part in (job.callback_id, "HTTP [500]", "1 pending, 1 undelivered, 0 delivered", "none alive"):
        assert part is not None
        assert part in output
    line = "callbacks  1 pending and no worker to deliver them, 1 undelivered, see: voicequeue callbacks"
    assert line in command("status").out
    assert command("status", "--json").json()["callbacks"] == {"pending": 1, "undelivered": 1}
    store.pulses["callbacks"].heard("w", time.time())
    assert "callbacks  1 pending, 1 undelivered" in command("status").out


def test_a_status_without_callbacks_has_no_line_for_them(command: Command, store: Store) -> None:
    """Nor does that of a batch."""
    failed(store, batch="b")

    assert "callbacks" not in command("status", "b").out
    store.callbacks.delivered(next(store.callbacks.pending()).id, NOW)
    assert "callbacks" not in command("status").out


def test_a_job_shows_the_status_of_its_callback(command: Command, store: Store) -> None:
    """Undelivered with the reason, pending, or delivered; nothing without a callback."""
    job = given_up(store)

    assert f"{job.callback_id} undelivered (HTTP [500])" in command("job", job.id).out
    command("callbacks", "--redeliver", job.callback_id)
    assert f"{job.callback_id} pending" in command("job", job.id).out
    assert command("job", job.id, "--json").json()["callback"] == {"id": job.callback_id, "delivered": False}
    store.callbacks.delivered(job.callback_id or "", NOW)
    assert f"{job.callback_id} delivered" in command("job", job.id).out
    assert "callback" not in command("job", brought_to(store, State.FAILED).id).out


def test_undelivered_callbacks_are_redelivered_by_id_by_batch_or_all(command: Command, store: Store) -> None:
    """The output counts them, and those that do not exist."""
    ids = [given_up(store, batch=batch).callback_id for batch in "aabc"]

    ended = command("callbacks", "--redeliver", ids[0], "--redeliver", "gone", "--json")
    assert (ended.code, ended.json()) == (1, {"redelivered": 1, "missing": 1})
    assert command("callbacks", "--batch", "a", "--json").json() == {"redelivered": 1, "missing": 0}
    assert "2 callbacks are delivered now" in command("callbacks", "--all-undelivered").out
    assert store.callbacks.counted(NOW).pending == 4
    assert command("callbacks", "--all-undelivered").out.startswith("0 callbacks")


@pytest.mark.parametrize("options", [("--batch", "b", "--all-undelivered"), ("--redeliver", "x", "--secret", HOOK)])
def test_options_exclude_each_other(command: Command, options: tuple[str, ...]) -> None:
    """Exit code 2."""
    assert command("callbacks", *options).code == 2


def test_the_secret_that_receivers_need_is_printed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver's own, for any URL of its server, of the first secret that is set; and the root secret."""
    monkeypatch.delenv("VOICEQUEUE_CALLBACK_SECRET", raising=False)
    monkeypatch.delenv("VOICEQUEUE_SECRET", raising=False)
    assert command("callbacks", "--secret", HOOK).code == 2

    monkeypatch.setenv("VOICEQUEUE_SECRET", "too-short")
    refused = command("callbacks", "--secret", HOOK)
    assert (refused.code, refused.out) == (2, "")
    assert "VOICEQUEUE_SECRET: can be guessed" in refused.err
    common = "the common secret of all these processes"
    monkeypatch.setenv("VOICEQUEUE_SECRET", common)
    root = command("callbacks", "--root-secret").out.strip()
    assert root == signatures.callback_secret(common)
    for url in ("https://shop.example", "https://SHOP.example:443/hooks?a=b"):
        printed = command("callbacks", "--secret", url).out.strip()
        assert printed == signatures.receiver_secret(root, "https://shop.example:443") != root
    assert command("callbacks", "--secret", "shop.example").code == 2
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", "whsec_bmV3 whsec_b2xk")
    assert command("callbacks", "--root-secret").out.strip() == "whsec_bmV3"
    assert command("callbacks", "--secret", "https://shop.example").out.strip() != printed


def test_a_batch_is_ingested_with_a_callback_url(
    command: Command, store: Store, queue: VoiceQueue, at_home: Path
) -> None:
    """An invalid URL is an error before anything is enqueued."""
    (at_home / "voices.csv").write_text("audio_url\nhttps://recordings.example/ana.wav\n")

    assert command("ingest", "voices.csv", "--batch", "b", "--callback-url", "hooks").code == 2
    assert list(queue.batches()) == []
    assert command("ingest", "voices.csv", "--batch", "b", "--callback-url", HOOK).code == 0
    [job] = queue.jobs(batch="b")
    queue.cancel(job.id)
    [callback] = queue.callbacks()
    assert (callback.type, callback.batch, callback.job_id) == ("batch.settled", "b", None)
