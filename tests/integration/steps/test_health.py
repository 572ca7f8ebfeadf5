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
from tasks.upstream_health import COOLDOWN_MAX_S, RATE_LIMITED_MAX, Health
from tests.integration.conftest import PATIENCE, Clock
from voicequeue.domain.gate import Effect, Hold, Reason, Refusal
from voicequeue.storage.flow_control import TROUBLE_MAX_S
from voicequeue.storage.job_store import Store

#: Reports the result of a request for a job.
Report = Callable[[Health, str, object], object]

#: The two kinds of requests: paid and free ones.
REQUESTS: dict[str, Report] = {
    "an order": Health.of_order,
    "a poll": lambda health, job_id, result: health.of_polls({job_id: result}),
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
def health(store: Store, clock: Clock) -> Health:
    """Return the health reports of one process."""
    return Health(store.controls, PATIENCE, clock)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Level and text of every line."""
    return [(record.levelno, record.getMessage()) for record in caplog.records]


# ── orders ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (
            RateLimited("slow", 30),
            Refusal(Reason.COOLDOWN, "slow", 5, 300, 300, wait_s=30, tries=RATE_LIMITED_MAX),
        ),
        (
            RateLimited("slow", 1e9),
            Refusal(Reason.COOLDOWN, "slow", 5, 300, 300, wait_s=300, tries=RATE_LIMITED_MAX),
        ),
        (RateLimited("slow"), Refusal(Reason.COOLDOWN, "slow", 5, 300, 300, tries=RATE_LIMITED_MAX)),
        (PaymentRequired("pay"), Refusal(Reason.OUT_OF_CREDITS, "pay", 5, 60, 60)),
        (Forbidden("no"), Refusal(Reason.UNAUTHORIZED, "no", 5, 60, 60)),
        (Unauthorized("key"), Refusal(Reason.UNAUTHORIZED, "key", 5, None, 60)),
        (Unavailable("HTTP 404"), Refusal(Reason.UPSTREAM_DOWN, "HTTP 404", 5, TROUBLE_MAX_S, TROUBLE_MAX_S)),
    ],
)
def test_the_store_decides_for_whom_a_refused_order_is_meant(
    health: Health, store: Store, clock: Clock, error: UpstreamError, refusal: Refusal
) -> None:
    """By what it knows of others; nothing is closed before. No Retry-After is believed beyond five minutes."""
    assert health.of_order("job-1", error) == refusal
    assert COOLDOWN_MAX_S == 300

    assert store.controls.gate(clock.now).open


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (RateLimited("slow."), logging.WARNING, "slow down"),
        (PaymentRequired("pay."), logging.ERROR, "Add credits"),
        (Unauthorized("key."), logging.ERROR, "voicequeue resume"),
        (Forbidden("no."), logging.ERROR, "denies access"),
        (Unavailable("HTTP 404."), logging.ERROR, "does not answer"),
    ],
)
def test_an_error_that_closes_the_gate_is_logged_with_its_job(
    health: Health, caplog: pytest.LogCaptureFixture, error: UpstreamError, level: int, text: str
) -> None:
    """The log has upstream's message; a refusal without an effect on others is not logged."""
    refusal = health.of_order("job-1", error)
    assert refusal is not None
    for effect in Effect:
        health.log_refusal("job-1", refusal, effect)

    (trial_level, trial), (closed_level, closed) = logged(caplog)
    assert (trial_level, closed_level) == (logging.WARNING, level)
    assert "One order at a time is tried" in trial
    assert text in closed
    assert all(error.message.rstrip(".") in text for text in (trial, closed))
    assert {record.__dict__["job"] for record in caplog.records} == {"job-1"}


# ── polls ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [*GENERAL_ERRORS, AmbiguousFailure("HTTP 502")])
def test_an_error_about_one_task_closes_nothing(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, error: UpstreamError
) -> None:
    """The number of polls does not matter, and the job is returned."""
    for _ in range(20):
        assert health.of_polls({"job-1": error}) == {"job-1"}

    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []


@pytest.mark.parametrize("error", [*GENERAL_ERRORS, AmbiguousFailure("HTTP 502")])
def test_errors_about_some_tasks_close_nothing_while_others_are_answered(
    health: Health, store: Store, clock: Clock, error: UpstreamError
) -> None:
    """The number of failed polls does not matter."""
    for _ in range(20):
        results: dict[str, object] = {"job-1": error, "job-2": error, "job-3": NotReady()}
        assert health.of_polls(results) == {"job-1", "job-2"}

    assert store.controls.gate(clock.now).open


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unauthorized("key"), Reason.UNAUTHORIZED),
        (Forbidden("no"), Reason.UNAUTHORIZED),
        (PaymentRequired("pay"), Reason.OUT_OF_CREDITS),
    ],
)
def test_errors_about_several_tasks_put_orders_on_trial(
    health: Health, store: Store, clock: Clock, error: UpstreamError, reason: Reason
) -> None:
    """Only an order shows whether orders are refused; an answered poll ends the trial."""
    assert health.of_polls({"job-1": error, "job-2": error}) == set()
    [hold] = store.controls.gate(clock.now).holds
    assert (hold.reason, hold.trial, hold.detail) == (reason, True, f"{error.message} (job job-1)")

    store.controls.note_balance(900, spent_before=0, asked=clock.now, now=clock.now)

    assert store.controls.gate(clock.now).open


def test_a_rate_limit_of_several_polls_is_a_cooldown(health: Health, store: Store, clock: Clock) -> None:
    """The rate limit of polls says nothing about the number of jobs that upstream accepts."""
    before = store.controls.flow()

    health.of_polls({"job-1": RateLimited("slow", 30), "job-2": RateLimited("slow", 30)})

    hold = Hold("cooldown", "slow (job job-2)", clock.now, clock.now + 30)
    assert store.controls.gate(clock.now).holds == (hold,)
    assert store.controls.flow() == before


# ── the balance ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [*GENERAL_ERRORS[:2], *GENERAL_ERRORS[3:], AmbiguousFailure("HTTP 502")])
def test_a_balance_that_cannot_be_read_closes_nothing(
    health: Health, store: Store, clock: Clock, error: UpstreamError
) -> None:
    """Orders do not need it."""
    for _ in range(20):
        health.of_balance(error)

    assert store.controls.gate(clock.now).open


def test_a_balance_that_is_denied_to_this_key_puts_orders_on_trial(health: Health, store: Store, clock: Clock) -> None:
    """The key may be wrong; an answered balance request ends the trial."""
    health.of_balance(Unauthorized("key"))
    assert store.controls.gate(clock.now).holds == (
        Hold("unauthorized", "key (get-credits)", clock.now, clock.now, trial=True),
    )

    store.controls.note_balance(900, spent_before=0, asked=clock.now, now=clock.now)

    assert store.controls.gate(clock.now).open


# ── no answer ─────────────────────────────────────────────────────────────────────────────────────


@OF_BOTH
@pytest.mark.parametrize("error", [InvalidRequest("no"), Moderated("no")])
def test_an_error_of_one_job_does_not_close_the_gate(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, report: Report, error: UpstreamError
) -> None:
    """The number of errors does not matter."""
    for n in range(9):
        assert not report(health, f"job-{n}", error)

    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []


@OF_BOTH
@pytest.mark.parametrize("error", [ConnectionFailed("no connection"), AmbiguousFailure("HTTP 502")])
def test_five_calls_in_a_row_without_an_answer_close_the_gate(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, report: Report, error: UpstreamError
) -> None:
    """The gate closes for a while, then one job is tried; it is logged once."""
    for n in range(4):
        report(health, f"job-{n}", error)
    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []

    for n in range(4, 7):
        report(health, f"job-{n}", error)

    detail = f"{error.message} (job job-4)"
    hold = Hold("upstream_down", detail, clock.now, clock.now + PATIENCE.cooldown_s)
    assert store.controls.gate(clock.now).holds == (hold,)
    [(level, text)] = logged(caplog)
    assert level == logging.ERROR
    assert error.message in text
    clock.now += PATIENCE.cooldown_s
    assert [hold.trial for hold in store.controls.gate(clock.now).holds] == [True]


def test_failed_connections_count_for_any_request(health: Health, store: Store, clock: Clock) -> None:
    """A single task, or the balance, counts like several."""
    for _ in range(4):
        health.of_polls({"job-1": ConnectionFailed("no connection")})
    assert store.controls.gate(clock.now).open

    health.of_balance(ConnectionFailed("no connection"))

    assert store.controls.gate(clock.now).closed_for(Reason.UPSTREAM_DOWN)


@OF_BOTH
@pytest.mark.parametrize(
    "answer", [NotReady(), InvalidRequest("no"), Moderated("no")], ids=["fine", "refused", "moderated"]
)
def test_any_answer_ends_the_row(health: Health, store: Store, clock: Clock, report: Report, answer: object) -> None:
    """Any answer shows that upstream is available."""
    for _ in range(3):
        for n in range(4):
            report(health, f"job-{n}", AmbiguousFailure("HTTP 502"))
        report(health, "job-9", answer)

    assert store.controls.gate(clock.now).open


def test_unanswered_requests_of_all_processes_count_together(health: Health, store: Store, clock: Clock) -> None:
    """Five workers with one failure each count like one worker with five."""
    for n in range(5):
        Health(store.controls, PATIENCE, clock).of_order(f"job-{n}", ConnectionFailed("no connection"))

    assert store.controls.gate(clock.now).closed_for("upstream_down")
