"""Effect of upstream's answers on the orders of all jobs: the gate, and one log line."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tasks.musicapi import (
    AmbiguousFailure,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    Moderated,
    NotReady,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tasks.upstream_health import COOLDOWN_MAX_S, RATE_LIMITED_MAX, UpstreamHealth
from tests.integration.conftest import TIMEOUTS, Clock
from voicequeue.domain.gate import Hold, HoldEffect, HoldReason, Refusal
from voicequeue.storage.flow_control import UPSTREAM_HOLD_MAX_S
from voicequeue.storage.job_store import JobStore

#: Reports the result of a request for a job.
Report = Callable[[UpstreamHealth, str, object], object]

#: The two kinds of requests: paid and free ones.
REQUESTS: dict[str, Report] = {
    "an order": UpstreamHealth.report_order,
    "a poll": lambda health, job_id, result: health.report_polls({job_id: result}),
}
OF_BOTH = pytest.mark.parametrize("report", REQUESTS.values(), ids=REQUESTS)

#: Errors that may apply to all orders.
GENERAL_ERRORS = [
    RateLimited("slow", 30),
    PaymentRequired("pay"),
    Unauthorized("key"),
    Forbidden("no"),
    Unavailable("HTTP 404: persona not found"),
]


@pytest.fixture
def clock() -> Clock:
    """Return a clock that the test advances."""
    return Clock()


@pytest.fixture
def health(store: JobStore, clock: Clock) -> UpstreamHealth:
    """Return the health reports of one process."""
    return UpstreamHealth(store.flow_control, TIMEOUTS, clock)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of every line."""
    return [(record.levelno, record.getMessage()) for record in caplog.records]


# ── orders ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (
            RateLimited("slow", 30),
            Refusal(HoldReason.COOLDOWN, "slow", 5, 300, 300, wait_s=30, max_attempts=RATE_LIMITED_MAX),
        ),
        (
            RateLimited("slow", 1e9),
            Refusal(HoldReason.COOLDOWN, "slow", 5, 300, 300, wait_s=300, max_attempts=RATE_LIMITED_MAX),
        ),
        (RateLimited("slow"), Refusal(HoldReason.COOLDOWN, "slow", 5, 300, 300, max_attempts=RATE_LIMITED_MAX)),
        (PaymentRequired("pay"), Refusal(HoldReason.OUT_OF_CREDITS, "pay", 5, 60, 60)),
        (Forbidden("no"), Refusal(HoldReason.UNAUTHORIZED, "no", 5, 60, 60)),
        (Unauthorized("key"), Refusal(HoldReason.UNAUTHORIZED, "key", 5, None, 60)),
        (
            Unavailable("HTTP 404"),
            Refusal(HoldReason.UPSTREAM_DOWN, "HTTP 404", 5, UPSTREAM_HOLD_MAX_S, UPSTREAM_HOLD_MAX_S),
        ),
    ],
)
def test_the_store_decides_for_whom_a_refused_order_is_meant(
    health: UpstreamHealth, store: JobStore, clock: Clock, error: UpstreamError, refusal: Refusal
) -> None:
    """By what it knows of others; nothing is closed before. No Retry-After is believed beyond five minutes."""
    assert health.report_order("job-1", error) == refusal
    assert COOLDOWN_MAX_S == 300

    assert store.flow_control.gate(clock.now).is_open


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (RateLimited("slow."), logging.WARNING, "rate limit"),
        (PaymentRequired("pay."), logging.ERROR, "Add credits"),
        (Unauthorized("key."), logging.ERROR, "voicequeue resume"),
        (Forbidden("no."), logging.ERROR, "denies access"),
        (Unavailable("HTTP 404."), logging.ERROR, "does not answer"),
    ],
)
def test_an_error_that_closes_the_gate_is_logged_with_its_job(
    health: UpstreamHealth, caplog: pytest.LogCaptureFixture, error: UpstreamError, level: int, text: str
) -> None:
    """The log has upstream's message; a refusal without an effect on others is not logged."""
    refusal = health.report_order("job-1", error)
    assert refusal is not None
    for effect in HoldEffect:
        health.log_refusal("job-1", refusal, effect)

    (trial_level, trial), (closed_level, closed) = logged(caplog)
    assert (trial_level, closed_level) == (logging.WARNING, level)
    assert "Trying one job at a time" in trial
    assert text in closed
    assert all(error.message.rstrip(".") in text for text in (trial, closed))
    assert {record.__dict__["job"] for record in caplog.records} == {"job-1"}


# ── polls ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [*GENERAL_ERRORS, AmbiguousFailure("HTTP 502")])
def test_an_error_about_one_task_closes_nothing(
    health: UpstreamHealth, store: JobStore, clock: Clock, caplog: pytest.LogCaptureFixture, error: UpstreamError
) -> None:
    """The number of polls does not matter, and the job is returned."""
    for _ in range(20):
        assert health.report_polls({"job-1": error}) == {"job-1"}

    assert store.flow_control.gate(clock.now).is_open
    assert logged(caplog) == []


@pytest.mark.parametrize("error", [*GENERAL_ERRORS, AmbiguousFailure("HTTP 502")])
def test_errors_about_some_tasks_close_nothing_while_others_are_answered(
    health: UpstreamHealth, store: JobStore, clock: Clock, error: UpstreamError
) -> None:
    """The number of failed polls does not matter."""
    for _ in range(20):
        results: dict[str, object] = {"job-1": error, "job-2": error, "job-3": NotReady()}
        assert health.report_polls(results) == {"job-1", "job-2"}

    assert store.flow_control.gate(clock.now).is_open


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unauthorized("key"), HoldReason.UNAUTHORIZED),
        (Forbidden("no"), HoldReason.UNAUTHORIZED),
        (PaymentRequired("pay"), HoldReason.OUT_OF_CREDITS),
    ],
)
def test_errors_about_several_tasks_put_orders_on_trial(
    health: UpstreamHealth, store: JobStore, clock: Clock, error: UpstreamError, reason: HoldReason
) -> None:
    """Only an order shows whether orders are refused; an answered poll ends the trial."""
    assert health.report_polls({"job-1": error, "job-2": error}) == set()
    [hold] = store.flow_control.gate(clock.now).holds
    assert (hold.reason, hold.is_on_trial, hold.detail) == (reason, True, f"{error.message} (job job-1)")

    store.flow_control.record_balance(900, spent_before=0, requested_at=clock.now, now=clock.now)

    assert store.flow_control.gate(clock.now).is_open


def test_a_rate_limit_of_several_polls_is_a_cooldown(health: UpstreamHealth, store: JobStore, clock: Clock) -> None:
    """The rate limit of polls says nothing about the number of jobs that upstream accepts."""
    before = store.flow_control.in_flight_limit()

    health.report_polls({"job-1": RateLimited("slow", 30), "job-2": RateLimited("slow", 30)})

    hold = Hold("cooldown", "slow (job job-2)", clock.now, clock.now + 30)
    assert store.flow_control.gate(clock.now).holds == (hold,)
    assert store.flow_control.in_flight_limit() == before


# ── the balance ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [*GENERAL_ERRORS[:2], *GENERAL_ERRORS[3:], AmbiguousFailure("HTTP 502")])
def test_a_balance_that_cannot_be_read_closes_nothing(
    health: UpstreamHealth, store: JobStore, clock: Clock, error: UpstreamError
) -> None:
    """Orders do not need it."""
    for _ in range(20):
        health.report_balance(error)

    assert store.flow_control.gate(clock.now).is_open


def test_a_balance_that_is_denied_to_this_key_puts_orders_on_trial(
    health: UpstreamHealth, store: JobStore, clock: Clock
) -> None:
    """The key may be wrong; an answered balance request ends the trial."""
    health.report_balance(Unauthorized("key"))
    assert store.flow_control.gate(clock.now).holds == (
        Hold("unauthorized", "key (get-credits)", clock.now, clock.now, is_on_trial=True),
    )

    store.flow_control.record_balance(900, spent_before=0, requested_at=clock.now, now=clock.now)

    assert store.flow_control.gate(clock.now).is_open


# ── no answer ─────────────────────────────────────────────────────────────────────────────────────


@OF_BOTH
@pytest.mark.parametrize("error", [InvalidRequest("no"), Moderated("no")])
def test_an_error_of_one_job_does_not_close_the_gate(
    health: UpstreamHealth,
    store: JobStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    report: Report,
    error: UpstreamError,
) -> None:
    """The number of errors does not matter."""
    for n in range(9):
        assert not report(health, f"job-{n}", error)

    assert store.flow_control.gate(clock.now).is_open
    assert logged(caplog) == []


@OF_BOTH
@pytest.mark.parametrize("error", [ConnectionFailed("no connection"), AmbiguousFailure("HTTP 502")])
def test_five_calls_in_a_row_without_an_answer_close_the_gate(
    health: UpstreamHealth,
    store: JobStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    report: Report,
    error: UpstreamError,
) -> None:
    """The gate closes for a while, then one job is tried; it is logged once."""
    for n in range(4):
        report(health, f"job-{n}", error)
    assert store.flow_control.gate(clock.now).is_open
    assert logged(caplog) == []

    for n in range(4, 7):
        report(health, f"job-{n}", error)

    detail = f"{error.message} (job job-4)"
    hold = Hold("upstream_down", detail, clock.now, clock.now + TIMEOUTS.cooldown_s)
    assert store.flow_control.gate(clock.now).holds == (hold,)
    [(level, text)] = logged(caplog)
    assert level == logging.ERROR
    assert error.message in text
    clock.now += TIMEOUTS.cooldown_s
    assert [hold.is_on_trial for hold in store.flow_control.gate(clock.now).holds] == [True]


def test_failed_connections_count_for_any_request(health: UpstreamHealth, store: JobStore, clock: Clock) -> None:
    """A single task, or the balance, counts like several."""
    for _ in range(4):
        health.report_polls({"job-1": ConnectionFailed("no connection")})
    assert store.flow_control.gate(clock.now).is_open

    health.report_balance(ConnectionFailed("no connection"))

    assert store.flow_control.gate(clock.now).hold_for(HoldReason.UPSTREAM_DOWN)


@OF_BOTH
@pytest.mark.parametrize(
    "answer", [NotReady(), InvalidRequest("no"), Moderated("no")], ids=["fine", "refused", "moderated"]
)
def test_any_answer_ends_the_row(
    health: UpstreamHealth, store: JobStore, clock: Clock, report: Report, answer: object
) -> None:
    """Any answer shows that upstream is available."""
    for _ in range(3):
        for n in range(4):
            report(health, f"job-{n}", AmbiguousFailure("HTTP 502"))
        report(health, "job-9", answer)

    assert store.flow_control.gate(clock.now).is_open


def test_unanswered_requests_of_all_processes_count_together(
    health: UpstreamHealth, store: JobStore, clock: Clock
) -> None:
    """Five workers with one failure each count like one worker with five."""
    for n in range(5):
        UpstreamHealth(store.flow_control, TIMEOUTS, clock).report_order(f"job-{n}", ConnectionFailed("no connection"))

    assert store.flow_control.gate(clock.now).hold_for("upstream_down")
