"""What upstream's answers mean for the orders of all jobs: the gate, and one line in the log."""

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

#: Tells of a call about a job.
Tell = Callable[[Health, str, object], object]

#: The two kinds of calls: those that cost credits and those that are free.
CALLS: dict[str, Tell] = {
    "an order": Health.of_order,
    "a question": lambda health, job_id, found: health.of_polls({job_id: found}),
}
OF_BOTH = pytest.mark.parametrize("tell", CALLS.values(), ids=CALLS)

#: Errors in words that may be meant for all; of no order or task in particular.
WORDS = [
    RateLimited("slow", 30),
    PaymentRequired("pay"),
    Unauthorized("key"),
    Forbidden("no"),
    Unavailable("HTTP 404: persona not found"),
]


@pytest.fixture
def clock() -> Clock:
    """Time that the test moves on."""
    return Clock()


@pytest.fixture
def health(store: Store, clock: Clock) -> Health:
    """Of one process."""
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
def test_what_closes_the_gate_is_logged_with_the_job_that_it_was_said_to(
    health: Health, caplog: pytest.LogCaptureFixture, error: UpstreamError, level: int, text: str
) -> None:
    """And upstream's words; what changes nothing for others is not."""
    refusal = health.of_order("job-1", error)
    assert refusal is not None
    for effect in Effect:
        health.log_refusal("job-1", refusal, effect)

    (trial_level, trial), (closed_level, closed) = logged(caplog)
    assert (trial_level, closed_level) == (logging.WARNING, level)
    assert "One order at a time is tried" in trial
    assert text in closed
    assert all(error.message.rstrip(".") in said for said in (trial, closed))
    assert {record.__dict__["job"] for record in caplog.records} == {"job-1"}


# ── questions ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [*WORDS, AmbiguousFailure("HTTP 502")])
def test_what_upstream_says_of_one_task_closes_nothing(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, error: UpstreamError
) -> None:
    """However often; whoever asks may name the job."""
    for _ in range(20):
        assert health.of_polls({"job-1": error}) == {"job-1"}

    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []


@pytest.mark.parametrize("error", [*WORDS, AmbiguousFailure("HTTP 502")])
def test_what_upstream_says_of_some_tasks_while_it_tells_of_others_closes_nothing(
    health: Health, store: Store, clock: Clock, error: UpstreamError
) -> None:
    """Be they many."""
    for _ in range(20):
        found: dict[str, object] = {"job-1": error, "job-2": error, "job-3": NotReady()}
        assert health.of_polls(found) == {"job-1", "job-2"}

    assert store.controls.gate(clock.now).open


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unauthorized("key"), Reason.UNAUTHORIZED),
        (Forbidden("no"), Reason.UNAUTHORIZED),
        (PaymentRequired("pay"), Reason.OUT_OF_CREDITS),
    ],
)
def test_what_upstream_refuses_of_several_tasks_is_tried_with_an_order(
    health: Health, store: Store, clock: Clock, error: UpstreamError, reason: Reason
) -> None:
    """Only orders can tell whether orders are refused; when it tells of a task again, it was nothing."""
    assert health.of_polls({"job-1": error, "job-2": error}) == set()
    [hold] = store.controls.gate(clock.now).holds
    assert (hold.reason, hold.trial, hold.detail) == (reason, True, f"{error.message} (job job-1)")

    store.controls.note_balance(900, spent_before=0, asked=clock.now, now=clock.now)

    assert store.controls.gate(clock.now).open


def test_questions_about_several_tasks_that_come_too_fast_are_a_cooldown(
    health: Health, store: Store, clock: Clock
) -> None:
    """That questions come too fast says nothing about how many jobs upstream bears."""
    before = store.controls.flow()

    health.of_polls({"job-1": RateLimited("slow", 30), "job-2": RateLimited("slow", 30)})

    held = Hold("cooldown", "slow (job job-2)", clock.now, clock.now + 30)
    assert store.controls.gate(clock.now).holds == (held,)
    assert store.controls.flow() == before


# ── the balance ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [*WORDS[:2], *WORDS[3:], AmbiguousFailure("HTTP 502")])
def test_a_balance_that_cannot_be_asked_for_closes_nothing(
    health: Health, store: Store, clock: Clock, error: UpstreamError
) -> None:
    """Orders go on without it."""
    for _ in range(20):
        health.of_balance(error)

    assert store.controls.gate(clock.now).open


def test_a_balance_that_upstream_does_not_tell_to_this_key_is_tried_with_an_order(
    health: Health, store: Store, clock: Clock
) -> None:
    """The key may be wrong; when it is told the balance again, it was nothing."""
    health.of_balance(Unauthorized("key"))
    assert store.controls.gate(clock.now).holds == (
        Hold("unauthorized", "key (get-credits)", clock.now, clock.now, trial=True),
    )

    store.controls.note_balance(900, spent_before=0, asked=clock.now, now=clock.now)

    assert store.controls.gate(clock.now).open


# ── no answer ─────────────────────────────────────────────────────────────────────────────────────


@OF_BOTH
@pytest.mark.parametrize("error", [InvalidRequest("no"), Moderated("no")])
def test_one_jobs_own_trouble_closes_the_gate_for_nobody(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, tell: Tell, error: UpstreamError
) -> None:
    """However often."""
    for n in range(9):
        assert not tell(health, f"job-{n}", error)

    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []


@OF_BOTH
@pytest.mark.parametrize("error", [ConnectionFailed("no connection"), AmbiguousFailure("HTTP 502")])
def test_five_calls_in_a_row_without_an_answer_close_the_gate(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, tell: Tell, error: UpstreamError
) -> None:
    """For a while, after which one job is tried; it is told once."""
    for n in range(4):
        tell(health, f"job-{n}", error)
    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []

    for n in range(4, 7):
        tell(health, f"job-{n}", error)

    detail = f"{error.message} (job job-4)"
    held = Hold("upstream_down", detail, clock.now, clock.now + PATIENCE.cooldown_s)
    assert store.controls.gate(clock.now).holds == (held,)
    [(level, text)] = logged(caplog)
    assert level == logging.ERROR
    assert error.message in text
    clock.now += PATIENCE.cooldown_s
    assert [hold.trial for hold in store.controls.gate(clock.now).holds] == [True]


def test_without_a_connection_it_is_of_no_concern_what_was_asked_about(
    health: Health, store: Store, clock: Clock
) -> None:
    """One task alone, or the balance, tells it as well as many."""
    for _ in range(4):
        health.of_polls({"job-1": ConnectionFailed("no connection")})
    assert store.controls.gate(clock.now).open

    health.of_balance(ConnectionFailed("no connection"))

    assert store.controls.gate(clock.now).closed_for(Reason.UPSTREAM_DOWN)


@OF_BOTH
@pytest.mark.parametrize(
    "answer", [NotReady(), InvalidRequest("no"), Moderated("no")], ids=["fine", "refused", "moderated"]
)
def test_any_answer_ends_the_row(health: Health, store: Store, clock: Clock, tell: Tell, answer: object) -> None:
    """Whatever it says: upstream is there."""
    for _ in range(3):
        for n in range(4):
            tell(health, f"job-{n}", AmbiguousFailure("HTTP 502"))
        tell(health, "job-9", answer)

    assert store.controls.gate(clock.now).open


def test_what_upstream_does_not_answer_counts_for_all_processes_together(
    health: Health, store: Store, clock: Clock
) -> None:
    """Five workers with one failure each know what one with five knows."""
    for n in range(5):
        Health(store.controls, PATIENCE, clock).of_order(f"job-{n}", ConnectionFailed("no connection"))

    assert store.controls.gate(clock.now).closed_for("upstream_down")
