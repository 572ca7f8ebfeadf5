"""Refusals of the simulator: what they mean, and that they are not charged."""

from __future__ import annotations

import pytest

from simulator.process import Simulator
from tasks.musicapi import (
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    Moderated,
    MusicApi,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tests.conftest import eventually
from tests.contract.conftest import SONG, order, sent, trouble
from voicequeue import Song
from voicequeue.domain.stage import Stage

REFUSALS: list[tuple[dict[str, object], type[UpstreamError], str]] = [
    ({"api_key": "another key"}, Unauthorized, "Invalid API key"),
    ({"credits": 3}, PaymentRequired, "remaining credits"),
    ({"subscription": False}, PaymentRequired, "active subscription"),
    ({"moderate_match": "anna"}, Moderated, "inappropriate content"),
    ({"concurrency": 0}, RateLimited, "Too many tasks"),
    ({"post_faults": {"rate_limited": 1}}, RateLimited, "slow down"),
]


@pytest.mark.parametrize("place", ["error", "message"])
@pytest.mark.parametrize(("dials", "expected", "text"), REFUSALS)
def test_a_refusal_costs_nothing_and_is_not_sent_again(
    simulator: Simulator,
    client: MusicApi,
    dials: dict[str, object],
    expected: type[UpstreamError],
    text: str,
    place: str,
) -> None:
    """Each has its error, with upstream's words, wherever they stand."""
    simulator.turn(**dials, error_place=place)

    error = trouble(lambda: order(client))

    assert type(error) is expected
    assert error.may_be_charged is False
    assert text in error.message
    assert sent(simulator) == 1
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("credits_400", PaymentRequired),
        ("rate_403", RateLimited),
        ("queue_403", RateLimited),
        ("rate_400", RateLimited),
        ("review_403", Moderated),
        ("rate_in_body", RateLimited),
        ("forbidden_in_body", Forbidden),
        ("bad_request_in_body", InvalidRequest),
        ("false_in_body", InvalidRequest),
        ("firewall_403", Unavailable),
        ("firewall_413", Unavailable),
    ],
)
def test_a_refusal_in_other_words_or_in_the_body_costs_nothing(
    simulator: Simulator, client: MusicApi, name: str, expected: type[UpstreamError]
) -> None:
    """What it says counts, wherever it says it."""
    simulator.turn(refuse_match="anna", refuse_with=name)

    error = trouble(lambda: order(client))

    assert (type(error), error.may_be_charged) == (expected, False)


def test_moderated_lyrics_about_credits_are_not_taken_for_an_empty_account(
    simulator: Simulator, client: MusicApi
) -> None:
    """One job's text must not hold back everybody."""
    simulator.turn(moderate_match="la la")
    assert type(trouble(lambda: order(client, Stage.MUSIC))) is Moderated

    simulator.turn(moderate_match="my credit card")
    song = Song(prompt="swipe my credit card")
    assert type(trouble(lambda: client.create_music("p1", song))) is Moderated


def test_a_request_that_breaks_the_contract_is_refused(simulator: Simulator, client: MusicApi) -> None:
    """400 names the field, and the job will never succeed."""
    assert type(trouble(lambda: client.create_voice("no url"))) is InvalidRequest
    error = trouble(lambda: client.create_music("", SONG))

    assert type(error) is InvalidRequest
    assert "persona_id" in error.message
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_says_how_long_to_wait(simulator: Simulator, client: MusicApi, form: str) -> None:
    """In either form of Retry-After; a date is of whole seconds."""
    simulator.turn(concurrency=0, retry_after=30, retry_after_form=form)

    error = trouble(lambda: order(client))

    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(30, abs=2)


def test_a_429_without_retry_after_leaves_the_wait_to_us(simulator: Simulator, client: MusicApi) -> None:
    """No header, no number."""
    simulator.turn(concurrency=0)

    error = trouble(lambda: order(client))

    assert isinstance(error, RateLimited)
    assert error.retry_after is None


def test_an_unknown_task_is_refused(client: MusicApi) -> None:
    """Also one whose id would lead somewhere else if it were put into a path as it is."""
    for task_id in ("nobody", "../get-credits", "a/b?c=d#e"):
        error = trouble(lambda task_id=task_id: client.get_task(task_id))  # type: ignore[misc]
        assert type(error) is InvalidRequest
        assert error.message == "task not found."


def test_a_wrong_key_is_told_on_every_call(simulator: Simulator, client: MusicApi) -> None:
    """Also by the free ones."""
    simulator.turn(api_key="another key")

    assert type(trouble(lambda: client.get_task("t1"))) is Unauthorized
    assert type(trouble(client.credits)) is Unauthorized


def test_a_refused_connection_costs_nothing_and_passes(simulator: Simulator, client: MusicApi) -> None:
    """Also where a connection was open before; the client needs nothing to work again."""
    order(client)
    simulator.refuse(for_s=0.2)

    error = trouble(lambda: order(client))

    assert type(error) is ConnectionFailed
    assert error.may_be_charged is False
    assert sent(simulator) == 1
    eventually(lambda: _balance(client) == 10_000 - 4)


def _balance(client: MusicApi) -> int | None:
    try:
        return client.credits()
    except UpstreamError:
        return None
