"""The command `callbacks` lists and redelivers callbacks, and prints secrets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, job_in_state
from tests.support.jobs import voice
from voicequeue import Job, State, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore

HOOK = "https://hooks.example/voices"


def failed(store: JobStore, **fields: str) -> Job:
    """Create a failed job with a callback URL."""
    return job_in_state(store, State.FAILED, voice(callback_url=HOOK, **fields))


def undelivered(store: JobStore, **fields: str) -> Job:
    """Create a failed job whose callback is undelivered."""
    job = failed(store, **fields)
    assert job.callback_id
    store.callbacks.lease(NOW, lease_s=60)
    store.callbacks.claim([job.callback_id], NOW, lease_s=60)
    store.callbacks.mark_undelivered(job.callback_id, NOW + 1, "HTTP [500]", is_attempted=True)
    return job


def test_the_json_lists_pending_and_undelivered_callbacks_with_counts(command: Command, store: JobStore) -> None:
    """Its field names are stable."""
    lost, waiting = undelivered(store, batch="b"), failed(store)
    common = {"type": "job.failed", "created_at": to_iso8601(NOW)}

    assert command("callbacks", "--json").json() == {
        "counts": {"pending": 1, "blocked": 0, "undelivered": 1, "delivered": 0, "workers": 0},
        "pending": [
            {
                **common, "id": waiting.callback_id, "job_id": waiting.id, "batch": None, "namespace": "",
                "attempts": 0, "last_error": None,
                "due_at": to_iso8601(NOW), "undelivered_at": None,
            }
        ],
        "undelivered": [
            {
                **common, "id": lost.callback_id, "job_id": lost.id, "batch": "b", "namespace": "",
                "attempts": 1, "last_error": "HTTP [500]",
                "due_at": None, "undelivered_at": to_iso8601(NOW + 1),
            }
        ],
    }  # fmt: skip


def test_the_command_shows_reasons_counts_and_missing_workers(command: Command, store: JobStore) -> None:
    """The status summarizes them in one line."""
    job = undelivered(store)
    failed(store)

    shown = command("callbacks").out
    for part in (job.callback_id, "HTTP [500]", "1 pending, 1 undelivered, 0 delivered", "none alive"):
        assert part is not None
        assert part in shown
    line = "callbacks  1 pending and no worker to deliver them, 1 undelivered, see: voicequeue callbacks"
    assert line in command("status").out
    assert command("status", "--json").json()["callbacks"] == {"pending": 1, "undelivered": 1}
    store.heartbeats["callbacks"].record("w", time.time())
    assert "callbacks  1 pending, 1 undelivered" in command("status").out


def test_the_status_does_not_mention_callbacks_without_pending_or_undelivered_ones(
    command: Command, store: JobStore
) -> None:
    """The status of a batch never does."""
    failed(store, batch="b")

    assert "callbacks" not in command("status", "b").out
    store.callbacks.mark_delivered(next(store.callbacks.pending()).id, NOW)
    assert "callbacks" not in command("status").out


def test_no_worker_is_missing_while_no_callback_is_pending(command: Command, store: JobStore) -> None:
    """As while the process that delivers them starts."""
    undelivered(store)

    assert "callbacks  0 pending, 1 undelivered" in command("status").out


def test_a_job_shows_the_state_of_its_callback(command: Command, store: JobStore) -> None:
    """Undelivered with the reason, pending, or delivered; nothing without a callback URL."""
    job = undelivered(store)

    assert f"{job.callback_id} undelivered (HTTP [500])" in command("job", job.id).out
    command("callbacks", "--redeliver", job.callback_id)
    assert f"{job.callback_id} pending" in command("job", job.id).out
    assert command("job", job.id, "--json").json()["callback"] == {"id": job.callback_id, "delivered": False}
    store.callbacks.mark_delivered(job.callback_id or "", NOW)
    assert f"{job.callback_id} delivered" in command("job", job.id).out
    assert "callback" not in command("job", job_in_state(store, State.FAILED).id).out


def test_undelivered_callbacks_are_redelivered_by_id_by_batch_or_all(command: Command, store: JobStore) -> None:
    """The command prints the numbers of redelivered and unknown callbacks."""
    ids = [undelivered(store, batch=batch).callback_id for batch in "aabc"]

    result = command("callbacks", "--redeliver", ids[0], "--redeliver", "gone", "--json")
    assert (result.code, result.json()) == (1, {"redelivered": 1, "missing": 1})
    assert command("callbacks", "--all-undelivered", "--batch", "a", "--json").json() == {
        "redelivered": 1,
        "missing": 0,
    }
    assert "2 callbacks scheduled for delivery now" in command("callbacks", "--all-undelivered").out
    assert store.callbacks.counts(NOW).pending == 4
    assert command("callbacks", "--all-undelivered").out.startswith("0 callbacks")


@pytest.mark.parametrize("options", [("--batch", "b", "--redeliver", "x"), ("--redeliver", "x", "--secret", HOOK)])
def test_options_that_exclude_each_other_are_rejected(command: Command, options: tuple[str, ...]) -> None:
    """With the exit code of wrong usage."""
    assert command("callbacks", *options).code == 2


def test_the_secret_of_a_receiver_is_printed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for any URL of its server, derived from the first secret that is set; and the root secret."""
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
    command: Command, store: JobStore, queue: VoiceQueue, working_folder: Path
) -> None:
    """An invalid URL is rejected before any job is enqueued."""
    (working_folder / "voices.csv").write_text("audio_url\nhttps://recordings.example/ana.wav\n")

    assert command("ingest", "voices.csv", "--batch", "b", "--callback-url", "hooks").code == 2
    assert list(queue.batches()) == []
    assert command("ingest", "voices.csv", "--batch", "b", "--callback-url", HOOK).code == 0
    [job] = queue.jobs(batch="b")
    queue.cancel(job.id)
    [callback] = queue.callbacks()
    assert (callback.type, callback.batch, callback.job_id) == ("batch.settled", "b", None)
