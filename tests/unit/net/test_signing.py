"""Tokens and signatures: only the holder of the secret makes them, and nothing odd breaks the check."""

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
    """Headers as upstream sends them."""
    timestamp = str(int(at))
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, sha256).hexdigest()
    return {"timestamp": timestamp, "signature": f"sha256={digest}"}


def test_a_token_is_of_one_order_alone() -> None:
    """Another job, stage, attempt or secret has another token; the same order has the same."""
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


def test_what_upstream_signed_lately_holds() -> None:
    """As its webhook guide has it: HMAC-SHA256 over timestamp, dot and raw body."""
    assert signatures.upstream_signed(SECRET, **signed(), body=BODY, now=NOW)
    assert signatures.upstream_signed(SECRET, **signed(at=NOW - 300), body=BODY, now=NOW)
    assert signatures.upstream_signed(SECRET, **signed(at=NOW + 300), body=BODY, now=NOW)


def test_what_is_forged_altered_or_old_does_not() -> None:
    """Neither a wrong secret, nor another body, nor a replay after the tolerance."""
    assert not signatures.upstream_signed(SECRET, **signed(secret="wrong"), body=BODY, now=NOW)
    assert not signatures.upstream_signed(SECRET, **signed(), body=BODY + b" ", now=NOW)
    assert not signatures.upstream_signed(SECRET, **signed(at=NOW - 301), body=BODY, now=NOW)
    assert not signatures.upstream_signed(SECRET, **signed(at=NOW + 301), body=BODY, now=NOW)


@pytest.mark.parametrize("timestamp", ["", "-1", "1e9", " 1795000000", "١٢٣", "nan", "9" * 400])
def test_an_odd_timestamp_is_refused_quietly(timestamp: str) -> None:
    """Nothing that a header may hold raises."""
    signature = signatures.upstream_signature(SECRET, timestamp, BODY)
    assert not signatures.upstream_signed(SECRET, timestamp=timestamp, signature=signature, body=BODY, now=NOW)


@given(st.text(), st.text(), st.binary())
def test_nothing_that_comes_in_breaks_the_check(timestamp: str, signature: str, body: bytes) -> None:
    """Whatever the headers and the body are, the answer is no."""
    assert not signatures.upstream_signed(SECRET, timestamp=timestamp, signature=signature, body=body, now=NOW)
