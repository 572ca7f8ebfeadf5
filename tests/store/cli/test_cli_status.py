"""The command `status` for a limited batch and a paused queue."""

from __future__ import annotations

from tests.store.conftest import Command
from tests.store.life import NOW, enqueue_jobs, job_in_state
from tests.support.jobs import numbered_voices, voice
from voicequeue import State
from voicequeue.storage.job_store import JobStore


def test_the_status_of_a_batch_shows_its_limits(command: Command, store: JobStore) -> None:
    """They explain why its jobs wait while the gate is open."""
    enqueue_jobs(store, *numbered_voices(3, batch="b"))
    assert "the batch  needs 12 credits for queued jobs\n" in command("status", "--batch", "b").out

    store.set_batch_limits("b", paused=True, max_credits=1_000, max_in_flight=2)

    limits = (
        "the batch  is paused, needs 12 credits for queued jobs, may spend 1,000 credits, may have 2 in flight at once"
    )
    assert limits in command("status", "--batch", "b").out
    assert "the batch" not in command("status").out
    status = command("status", "--batch", "b", "--json").json()
    assert (status["paused"], status["max_credits"], status["max_in_flight"]) == (True, 1_000, 2)


def test_a_batch_that_has_stopped_says_why(command: Command, store: JobStore) -> None:
    """In the status and while it is watched; a pause by an operator shows no such reason."""
    store.set_batch_limits("b", stop_after=1.0, stop_min=2)
    for _ in range(2):
        job_in_state(store, State.FAILED, voice(batch="b"))
    enqueue_jobs(store, voice(key="next", batch="b"))
    reason = "stopped: 2 of 2 settled jobs failed (upstream_failed 2), 0 orders in flight, limit 100 %"

    output = command("status", "--batch", "b").out
    status = command("status", "--batch", "b", "--json").json()

    assert f"the batch  {reason}, needs 4 credits for queued jobs" in output
    assert "failed     upstream_failed 2" in output
    assert (status["paused"], status["stopped"]["reason"]) == (True, reason)
    assert (status["stopped"]["settled"], status["stopped"]["failed_by_code"]) == (2, {"upstream_failed": 2})
    watched = command("watch", "--batch", "b", "--timeout", "0").out
    assert watched == f"b: 1 queued, 2 failed (upstream_failed 2), 8 credits; {reason}\n"

    command("resume", "--batch", "b")
    command("pause", "--batch", "b")
    status = command("status", "--batch", "b", "--json").json()
    assert (status["paused"], status["stopped"]) == (True, None)


def test_the_status_of_the_queue_names_stopped_batches_first(command: Command, store: JobStore) -> None:
    """The latest five with their reason; batches without unsettled jobs need no one."""
    for n in range(8):
        store.set_batch_limits(f"b{n}", stop_after=1.0, stop_min=1)
        job_in_state(store, State.FAILED, voice(batch=f"b{n}", key=f"failed-{n}"))
        if n > 0:
            enqueue_jobs(store, voice(key=f"next-{n}", batch=f"b{n}"), now=NOW + n)
    enqueue_jobs(store, voice(key="fine", batch="fine"))

    lines = command("status").out.splitlines()

    reason = "1 of 1 settled jobs failed (upstream_failed 1), 0 orders in flight, limit 100 %"
    names = ("b7", "b6", "b5", "b4", "b3")
    assert lines[1:7] == [
        *(f"stopped    batch {name}: {reason}" for name in names),
        "stopped    2 more batches, see: voicequeue batches",
    ]
    assert lines[7].startswith("gate")
    assert command("status", "--json").json()["stopped_batches"] == [*names, "b2", "b1"]
    assert "stopped    " not in command("status", "--batch", "fine").out


def test_a_pause_keeps_its_reason_when_paused_again(command: Command) -> None:
    """A second pause without a reason does not clear it."""
    command("pause", "--reason", "lunch")
    command("pause")
    assert "closed: paused (lunch)" in command("status").out

    command("pause", "--reason", "dinner")
    assert "closed: paused (dinner)" in command("status").out
