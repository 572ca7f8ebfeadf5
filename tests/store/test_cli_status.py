"""The command: what the status tells of a batch that waits, and of a pause that somebody explained."""

from __future__ import annotations

from tests.store.conftest import Command
from tests.store.life import put
from tests.support.jobs import numbered
from voicequeue.storage.job_store import Store


def test_the_status_of_a_batch_tells_what_was_set_for_it(command: Command, store: Store) -> None:
    """Or nobody knows why its jobs wait while the gate is open."""
    put(store, *numbered(3, batch="b"))
    assert "the batch" not in command("status", "--batch", "b").out

    store.limit_batch("b", paused=True, max_credits=1_000, max_in_flight=2)

    told = "the batch  is paused, may spend 1,000 credits, may have 2 in flight at once"
    assert told in command("status", "--batch", "b").out
    assert "the batch" not in command("status").out
    found = command("status", "--batch", "b", "--json").json()
    assert (found["paused"], found["max_credits"], found["max_in_flight"]) == (True, 1_000, 2)


def test_a_pause_keeps_its_reason_when_somebody_pauses_again(command: Command) -> None:
    """Who does not say why does not take back what was said."""
    command("pause", "--reason", "lunch")
    command("pause")
    assert "closed: paused (lunch)" in command("status").out

    command("pause", "--reason", "dinner")
    assert "closed: paused (dinner)" in command("status").out
