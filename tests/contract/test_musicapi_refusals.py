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
from tests.contract.conftest import SONG, order, sent, upstream_error
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
    """Each refusal raises its error with upstream's message, wherever the body contains it."""
    simulator.set_dials(**dials, error_place=place)

    error = upstream_error(lambda: order(client))

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
    """The text decides, wherever the response contains it."""
    simulator.set_dials(refuse_match="anna", refuse_with=name)

    error = upstream_error(lambda: order(client))

    assert (type(error), error.may_be_charged) == (expected, False)


def test_moderated_lyrics_about_credits_are_not_taken_for_an_empty_account(
    simulator: Simulator, client: MusicApi
) -> None:
    """The text of one job does not hold back the others."""
    simulator.set_dials(moderate_match="la la")
    assert type(upstream_error(lambda: order(client, Stage.MUSIC))) is Moderated

    simulator.set_dials(moderate_match="my credit card")
    song = Song(prompt="swipe my credit card")
    assert type(upstream_error(lambda: client.create_music("p1", song))) is Moderated


def test_a_request_that_breaks_the_contract_is_refused(simulator: Simulator, client: MusicApi) -> None:
    """The 400 response names the field, and the error is permanent."""
    assert type(upstream_error(lambda: client.create_voice("no url"))) is InvalidRequest
    error = upstream_error(lambda: client.create_music("", SONG))

    assert type(error) is InvalidRequest
    assert "persona_id" in error.message
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_says_how_long_to_wait(simulator: Simulator, client: MusicApi, form: str) -> None:
    """Both forms of Retry-After are read; a date has a precision of one second."""
    simulator.set_dials(concurrency=0, retry_after=30, retry_after_form=form)

    error = upstream_error(lambda: order(client))

    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(30, abs=2)


def test_a_429_without_retry_after_leaves_the_wait_to_us(simulator: Simulator, client: MusicApi) -> None:
    """Without the header there is no delay."""
    simulator.set_dials(concurrency=0)

    error = upstream_error(lambda: order(client))

    assert isinstance(error, RateLimited)
    assert error.retry_after is None


def test_an_unknown_task_is_refused(client: MusicApi) -> None:
    """Ids with path characters are escaped."""
    for task_id in ("nobody", "../get-credits", "a/b?c=d#e"):
        error = upstream_error(lambda task_id=task_id: client.get_task(task_id))  # type: ignore[misc]
        assert type(error) is InvalidRequest
        assert error.message == "task not found."


def test_a_wrong_key_is_reported_for_every_request(simulator: Simulator, client: MusicApi) -> None:
    """Free requests report a wrong key too."""
    simulator.set_dials(api_key="another key")

    assert type(upstream_error(lambda: client.get_task("t1"))) is Unauthorized
    assert type(upstream_error(client.get_credits)) is Unauthorized


def test_a_refused_connection_costs_nothing_and_passes(simulator: Simulator, client: MusicApi) -> None:
    """Open connections are dropped, and the client recovers by itself."""
    order(client)
    simulator.refuse_connections(for_s=0.2)

    error = upstream_error(lambda: order(client))

    assert type(error) is ConnectionFailed
    assert error.may_be_charged is False
    assert sent(simulator) == 1
    eventually(lambda: _balance(client) == 10_000 - 4)


def _balance(client: MusicApi) -> int | None:
    try:
        return client.get_credits()
    except UpstreamError:
        return None
