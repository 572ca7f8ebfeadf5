"""Tokens and signatures: only the holder of the secret can create them, and no input breaks the check."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicequeue.auth import signatures

SECRET = "a secret of this queue"
NOW = 1_795_000_000.0
BODY = b'{"task_id": "t1", "data": {"persona_id": "p1"}}'


def signed(*, secret: str = SECRET, at: float = NOW, body: bytes = BODY) -> dict[str, str]:
    """Return headers as upstream sends them."""
    timestamp = str(int(at))
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, sha256).hexdigest()
    return {"timestamp": timestamp, "signature": f"sha256={digest}"}


def test_a_token_is_valid_for_one_order_only() -> None:
    """Another job, stage, attempt or secret gives another token; the same order gives the same token."""
    token = signatures.webhook_token(SECRET, "job1", "voice", 1)

    assert token == signatures.webhook_token(SECRET, "job1", "voice", 1)
    others = [
        signatures.webhook_token(SECRET, "job2", "voice", 1),
        signatures.webhook_token(SECRET, "job1", "music", 1),
        signatures.webhook_token(SECRET, "job1", "voice", 2),
        signatures.webhook_token("another", "job1", "voice", 1),
    ]
    assert len({token, *others}) == 5


STRONG = st.text("abcdefghijklmnop0123456789-_ ", min_size=40, max_size=60).map(lambda text: f"12345678{text.strip()}")


def parse(setting: str) -> tuple[tuple[str, ...], str]:
    """Return the values of the setting, or the error."""
    try:
        return signatures.parse_secrets(setting), ""
    except ValueError as error:
        return (), str(error)


@given(st.lists(STRONG, min_size=1, max_size=2, unique=True), st.sampled_from([",", ", ", " ,", ",,"]))
def test_a_secret_in_rotation_has_two_values_in_the_order_of_the_setting(secrets: list[str], comma: str) -> None:
    """The first is the one that signs; a token of either is found, and one of another secret is not."""
    parsed, error = parse(comma.join(secrets))
    assert parsed == tuple(secrets) or "spaces" in error
    for secret in parsed:
        token = signatures.webhook_token(secret, "j", "voice", 1)
        assert signatures.find_webhook_secret(parsed, token, job_id="j", stage="voice", attempt=1) == secret
        assert signatures.find_webhook_secret(parsed, token, job_id="i", stage="voice", attempt=1) is None
    foreign = signatures.webhook_token("another", "j", "voice", 1)
    assert signatures.find_webhook_secret(parsed, foreign, job_id="j", stage="voice", attempt=1) is None
    assert signatures.find_webhook_secret((), foreign, job_id="j", stage="voice", attempt=1) is None


@given(st.lists(st.text("abc, 0123456789defgh", max_size=45), max_size=4), st.sampled_from([",", " ", ", "]))
def test_whatever_the_setting_each_accepted_value_is_long_and_no_error_shows_one(parts: list[str], comma: str) -> None:
    """Neither a short new value beside a good old one, nor two values with a space, becomes a secret silently."""
    setting = comma.join(parts)
    parsed, error = parse(setting)
    if error:
        assert not [part for part in parts if len(part.strip()) > 8 and part.strip() in error]
        return
    assert len(parsed) <= 2
    assert all(len(secret) >= 32 and len(set(secret)) >= 8 for secret in parsed)
    assert not [
        word
        for secret in parsed
        for word in secret.split()
        if len(word) >= 32 and len(secret.split()) > 1 and len(set(word)) >= 8
    ]
    assert "".join(parsed).replace(" ", "") == setting.replace(",", "").replace(" ", "")


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_parts_never_sign_the_same(one: list[str], other: list[str]) -> None:
    """Moving text from one part to its neighbour changes the result."""
    assert (signatures.derive(SECRET, *one) == signatures.derive(SECRET, *other)) == (one == other)


def test_a_recent_signature_of_upstream_is_valid() -> None:
    """As its webhook guide defines it: HMAC-SHA256 over timestamp, dot and raw body."""
    assert signatures.verify_upstream_signature(SECRET, **signed(), body=BODY, now=NOW)
    assert signatures.verify_upstream_signature(SECRET, **signed(at=NOW - 300), body=BODY, now=NOW)
    assert signatures.verify_upstream_signature(SECRET, **signed(at=NOW + 300), body=BODY, now=NOW)


def test_a_forged_altered_or_old_signature_is_invalid() -> None:
    """A wrong secret, another body, or a replay after the tolerance."""
    assert not signatures.verify_upstream_signature(SECRET, **signed(secret="wrong"), body=BODY, now=NOW)
    assert not signatures.verify_upstream_signature(SECRET, **signed(), body=BODY + b" ", now=NOW)
    assert not signatures.verify_upstream_signature(SECRET, **signed(at=NOW - 301), body=BODY, now=NOW)
    assert not signatures.verify_upstream_signature(SECRET, **signed(at=NOW + 301), body=BODY, now=NOW)


@pytest.mark.parametrize("timestamp", ["", "-1", "1e9", " 1795000000", "١٢٣", "nan", "9" * 400])
def test_an_invalid_timestamp_is_rejected_without_an_exception(timestamp: str) -> None:
    """For any content of the header."""
    signature = signatures.sign_as_upstream(SECRET, timestamp, BODY)
    assert not signatures.verify_upstream_signature(
        SECRET, timestamp=timestamp, signature=signature, body=BODY, now=NOW
    )


@given(st.text(), st.text(), st.binary())
def test_no_input_breaks_the_check(timestamp: str, signature: str, body: bytes) -> None:
    """For any headers and body the result is False."""
    assert not signatures.verify_upstream_signature(
        SECRET, timestamp=timestamp, signature=signature, body=body, now=NOW
    )
