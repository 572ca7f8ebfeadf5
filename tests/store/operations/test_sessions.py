"""Logins to the job page: sessions that end everywhere at once, and waits after failed logins."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW, assert_consistent
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.login_attempts import ADDRESSES_MAX, ATTACK_ADDRESSES, FORGET_S, WAIT_MAX_S, LoginAttempts
from voicequeue.storage.sessions import SESSION_S, SESSIONS_MAX, Sessions


@pytest.fixture
def sessions(store: JobStore) -> Sessions:
    """Return a store of sessions without any."""
    return store.sessions


@pytest.fixture
def logins(store: JobStore) -> LoginAttempts:
    """Return login attempts without any."""
    return store.login_attempts


def prove(session_id: str, since: str) -> str:
    """Return a proof that depends on the session."""
    return f"{session_id[:4]} since {since}"


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────


def test_a_session_is_found_only_by_its_token(sessions: Sessions, redis: Redis, prefix: str) -> None:
    """Redis stores no token, and what it stores is no token."""
    token = sessions.create("ana", prove, NOW)
    session = sessions.find(token)

    assert session is not None
    assert (session.name, session.proof) == ("ana", prove(session.id, str(NOW)))
    assert session.age_s(NOW + 5) == 5
    assert not [key for key in redis.scan_iter(f"*{prefix}*") if token in f"{key}"]
    for other in (session.id, token[:-1], token + "x", "", "*", "ana", "x" * 43):
        assert sessions.find(other) is None


def test_a_session_ends_by_logout_and_by_expiry(sessions: Sessions, redis: Redis, prefix: str) -> None:
    """No key is left."""
    mine, other = (sessions.create("ana", prove, NOW) for _ in range(2))
    session = sessions.find(mine)
    assert session is not None
    assert 0 < redis.ttl(f"{{{prefix}}}:session:{session.id}") <= SESSION_S

    sessions.put_notice(session.id, "done")
    sessions.end(session.id, "ana")

    assert sessions.find(mine) is None
    assert sessions.find(other) is not None
    assert not [key for key in redis.scan_iter(f"*{prefix}*") if session.id in f"{key}"]


def test_all_sessions_of_a_key_end_together(sessions: Sessions) -> None:
    """Other keys are not affected; the key can log in again."""
    mine, theirs = [sessions.create("ana", prove, NOW) for _ in range(3)], sessions.create("bo", prove, NOW)

    sessions.end_all("ana")

    assert [sessions.find(token) for token in mine] == [None] * 3
    assert sessions.find(theirs) is not None
    assert sessions.find(sessions.create("ana", prove, NOW)) is not None


def test_the_number_of_sessions_of_a_key_is_limited(sessions: Sessions) -> None:
    """The oldest end: repeated logins do not fill the memory."""
    tokens = [sessions.create("ana", prove, NOW + at) for at in range(SESSIONS_MAX + 2)]

    assert [sessions.find(token) is None for token in tokens] == [True] * 2 + [False] * SESSIONS_MAX


def test_a_notice_is_shown_once(sessions: Sessions) -> None:
    """It is on the next page of that session; an unpaired surrogate does no harm."""
    session = sessions.find(sessions.create("ana", prove, NOW))
    assert session is not None

    sessions.put_notice(session.id, "a\ud800" + "b" * 2_000)

    assert sessions.take_notice(session.id).startswith("a\ufffdbbb")
    assert sessions.take_notice(session.id) == ""


def test_the_audit_ignores_logins(sessions: Sessions, logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """Their keys are not jobs."""
    session = sessions.find(sessions.create("ana", prove, NOW))
    assert session is not None
    sessions.put_notice(session.id, "done")
    logins.count_attempt("192.0.2.7", NOW)

    assert_consistent(redis, prefix)


# ── failed logins ─────────────────────────────────────────────────────────────────────────────────


def test_an_address_waits_longer_after_each_failure(logins: LoginAttempts) -> None:
    """Five attempts are free; then it waits seconds, at most minutes. Attempts during a wait are not counted."""
    now, waits = NOW, []
    for _ in range(13):
        wait_s = logins.count_attempt("192.0.2.7", now)
        if wait_s:
            waits.append(wait_s)
            assert logins.count_attempt("192.0.2.7", now + wait_s / 2) == pytest.approx(wait_s / 2, abs=0.01)
            now += wait_s
            assert logins.count_attempt("192.0.2.7", now) == 0
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300][: len(waits)], abs=0.01)
    assert max(waits) <= WAIT_MAX_S


def test_concurrent_attempts_are_counted_before_their_keys_are_checked(logins: LoginAttempts) -> None:
    """A thousand concurrent attempts count like five."""
    assert [logins.count_attempt("192.0.2.7", NOW) for _ in range(100)].count(0) == 5


@pytest.mark.parametrize("same", [["::ffff:192.0.2.7", "192.0.2.7"], ["2001:db8::1", "2001:db8::ffff:2"], ["", "x"]])
def test_addresses_of_one_network_count_as_one(logins: LoginAttempts, same: list[str]) -> None:
    """A /64 is one address; so are all invalid addresses."""
    for number in range(5):
        logins.count_attempt(same[number % 2], NOW)

    assert all(logins.count_attempt(address, NOW) for address in same)
    for other in ("192.0.2.8", "2001:db8:0:1::1"):
        assert logins.count_attempt(other, NOW) == 0


def test_a_valid_key_uncounts_only_its_own_attempt(logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """One valid key does not excuse guesses; without failures nothing is stored."""
    for _ in range(5):
        logins.count_attempt("192.0.2.7", NOW)
        logins.count_attempt("192.0.2.8", NOW)
        logins.succeeded("192.0.2.8")

    later = NOW + 6
    assert (logins.count_attempt("192.0.2.7", later), logins.count_attempt("192.0.2.7", later) > 0) == (0, True)
    logins.succeeded("192.0.2.7")
    assert logins.count_attempt("192.0.2.7", later) > 0
    assert redis.hkeys(f"{{{prefix}}}:failed_logins:attempts") == ["192.0.2.7"]


def test_failures_are_forgotten(logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """They are deleted some minutes after the last one."""
    for _ in range(5):
        logins.count_attempt("192.0.2.7", NOW)
    later = NOW + FORGET_S + 1
    logins.count_attempt("192.0.2.8", later)

    assert redis.hkeys(f"{{{prefix}}}:failed_logins:attempts") == ["192.0.2.8"]
    assert 0 < redis.ttl(f"{{{prefix}}}:failed_logins") <= FORGET_S
    assert 0 < redis.ttl(f"{{{prefix}}}:failed_logins:attempts") <= FORGET_S


def test_a_distributed_attack_leaves_each_address_one_attempt(logins: LoginAttempts) -> None:
    """An address without a failure can log in at once; others have no second attempt."""
    flood = [f"198.51.100.{number}" for number in range(ATTACK_ADDRESSES)]
    assert [logins.count_attempt(address, NOW) for address in flood] == [0] * ATTACK_ADDRESSES

    assert all(logins.count_attempt(address, NOW + 1) for address in flood)
    assert logins.count_attempt("192.0.2.7", NOW + 1) == 0
    assert logins.count_attempt("192.0.2.7", NOW + 1) > 0
    assert logins.count_attempt("192.0.2.7", NOW + 120) == 0  # it is over


def test_a_distributed_attack_does_not_fill_the_memory(logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """Only the latest addresses are stored."""
    names = {f"old-{number}": NOW - 200 for number in range(ADDRESSES_MAX)}
    redis.zadd(f"{{{prefix}}}:failed_logins", names)
    redis.hset(f"{{{prefix}}}:failed_logins:attempts", mapping=dict.fromkeys(names, 1))

    assert logins.count_attempt("192.0.2.7", NOW) == 0

    assert (
        redis.zcard(f"{{{prefix}}}:failed_logins")
        == redis.hlen(f"{{{prefix}}}:failed_logins:attempts")
        == ADDRESSES_MAX
    )
