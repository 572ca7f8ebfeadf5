"""Jobs that wait for the budget of a day or a month start when it ends, by the queue's clock and without a wake-up."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.integration.conftest import Bench
from tests.store.life import accept_order, apply_transition, claim_admitted, enqueue_jobs
from tests.support.jobs import voice
from voicequeue import State
from voicequeue.domain.budgets import period_ends
from workers.dispatcher import Dispatcher

#: The time that a dispatcher waits for a wake-up in these tests (seconds).
NO_TIME = 0.001


@pytest.mark.parametrize("period", ["day", "month"])
def test_waiting_jobs_start_in_the_next_period(bench: Bench, period: str) -> None:
    """The dispatcher admits at its interval; in the last second of the period none, in the first of the next one."""
    store, clock, handed_out = bench.store, bench.clock, list[str]()
    dispatcher = Dispatcher(bench.services, lambda _, ids: handed_out.extend(ids), worker="w", chunk=10)
    work = partial(dispatcher.wait_and_admit, NO_TIME, lambda _: None)
    limits: dict[str, Any] = {period: 6}
    store.flow_control.set_budget("account", **limits)
    first, second = enqueue_jobs(store, voice(key="first"), voice(key="second"), now=clock.now)
    work()
    claim_admitted(store, first, clock.now)
    apply_transition(store, accept_order(store, first, clock.now), State.SUCCEEDED, clock.now)
    end = period_ends(clock.now)[period]
    [[hold]] = store.job_holds([second], clock.now)
    assert (hold.reason, hold.until) == (f"budget_{period}", end)

    clock.now = end - 1
    work()
    assert handed_out == [first]
    clock.now = end
    assert not store.coordination.wait_for_wakeup(NO_TIME)
    work()
    assert handed_out == [first, second]
