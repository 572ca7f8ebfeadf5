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
