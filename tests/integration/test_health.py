"""What upstream's answers mean for everybody's charges: the gate, the limit, and one line in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tasks.health import COOLDOWN_MAX_S, Health
from tasks.musicapi import (
    CannotPay,
    Forbidden,
    Moderated,
    NoAnswer,
    Refused,
    SlowDown,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tests.integration.conftest import PATIENCE, Clock
from voicequeue.gate import Hold
from voicequeue.store import Store

Tell = Callable[[Health, object], None]

#: The two kinds of calls: those that cost credits and those that are free.
CALLS: dict[str, Tell] = {"an order": Health.of_order, "a question": Health.of_question}
OF_BOTH = pytest.mark.parametrize("tell", CALLS.values(), ids=CALLS)


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


@OF_BOTH
@pytest.mark.parametrize(
    ("error", "reason", "for_s", "level", "told"),
    [
        (SlowDown("slow", 30), "cooldown", 30.0, logging.WARNING, "slow down"),
        (SlowDown("slow", 0), "cooldown", PATIENCE.cooldown_s, logging.WARNING, "slow down"),
        (SlowDown("slow", 1e9), "cooldown", COOLDOWN_MAX_S, logging.WARNING, "slow down"),
        (SlowDown("slow"), "cooldown", PATIENCE.cooldown_s, logging.WARNING, "slow down"),
        (CannotPay("pay"), "out_of_credits", None, logging.ERROR, "Add credits"),
        (Unauthorized("key"), "unauthorized", None, logging.ERROR, "voicequeue resume"),
        (Forbidden("no"), "unauthorized", PATIENCE.account_s, logging.ERROR, "forbids"),
    ],
)
def test_what_would_meet_everybody_closes_the_gate_and_is_told_once(
    health: Health,
    store: Store,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    tell: Tell,
    error: UpstreamError,
    reason: str,
    for_s: float | None,
    level: int,
    told: str,
) -> None:
    """With the reason, upstream's words and until when; the next ones of the same say nothing new."""
    until = None if for_s is None else clock.now + for_s

    for _ in range(3):
        tell(health, error)

    assert store.controls.gate(clock.now).holds == (Hold(reason, error.message, clock.now, until),)
    [(at, text)] = logged(caplog)
    assert at == level
    assert told in text
    assert error.message in text


@OF_BOTH
@pytest.mark.parametrize("error", [Refused("no"), Moderated("no")])
def test_one_jobs_own_trouble_closes_the_gate_for_nobody(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, tell: Tell, error: UpstreamError
) -> None:
    """However often."""
    for _ in range(9):
        tell(health, error)

    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []


def test_only_slow_orders_lower_the_limit(health: Health, store: Store, clock: Clock) -> None:
    """That questions come too fast says nothing about how many jobs upstream bears."""
    before = store.controls.flow()

    health.of_question(SlowDown("slow"))
    assert store.controls.flow() == before

    health.of_order(SlowDown("slow"))
    assert store.controls.flow().limit == 1


@OF_BOTH
@pytest.mark.parametrize("error", [Unavailable("no connection"), NoAnswer("HTTP 502")])
def test_five_calls_in_a_row_without_an_answer_close_the_gate(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, tell: Tell, error: UpstreamError
) -> None:
    """For a while, after which one job is tried; it is told once."""
    for _ in range(4):
        tell(health, error)
    assert store.controls.gate(clock.now).open
    assert logged(caplog) == []

    for _ in range(3):
        tell(health, error)

    held = Hold("upstream_down", error.message, clock.now, clock.now + PATIENCE.cooldown_s)
    assert store.controls.gate(clock.now).holds == (held,)
    [(level, text)] = logged(caplog)
    assert level == logging.ERROR
    assert error.message in text
    clock.now += PATIENCE.cooldown_s
    assert [hold.trial for hold in store.controls.gate(clock.now).holds] == [True]


@OF_BOTH
@pytest.mark.parametrize("answer", ["a task id", Refused("no"), Moderated("no")], ids=["fine", "refused", "moderated"])
def test_any_answer_ends_the_row(health: Health, store: Store, clock: Clock, tell: Tell, answer: object) -> None:
    """Whatever it says: upstream is there."""
    for _ in range(3):
        for _ in range(4):
            tell(health, NoAnswer("HTTP 502"))
        tell(health, answer)

    assert store.controls.gate(clock.now).open


def test_what_upstream_does_not_answer_counts_for_all_processes_together(
    health: Health, store: Store, clock: Clock
) -> None:
    """Five workers with one failure each know what one with five knows."""
    for _ in range(5):
        Health(store.controls, PATIENCE, clock).of_order(Unavailable("no connection"))

    assert store.controls.gate(clock.now).closed_for("upstream_down")


def test_what_was_over_and_begins_anew_is_told_anew(
    health: Health, store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each time that it begins."""
    health.of_order(SlowDown("slow", 5))
    clock.now += 5
    health.of_order(SlowDown("slow", 5))

    assert len(logged(caplog)) == 2


def test_a_key_that_is_still_wrong_after_a_resume_is_told_again(
    health: Health, clock: Clock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever thought to have mended it learns that they have not; the orders beside it say nothing more."""
    for _ in range(3):
        health.of_order(Unauthorized("Invalid API key."))
    store.controls.resume(clock.now)
    clock.now += 1
    for _ in range(3):
        health.of_order(Unauthorized("Invalid API key."))

    assert caplog.text.count("the key is wrong") == 2
