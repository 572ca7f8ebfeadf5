"""Logins to the page in Redis: sessions, which end everywhere at once, and waits after failed logins."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW, everything_agrees
from voicequeue.storage.job_store import Store
from voicequeue.storage.login_attempts import ADDRESSES_MAX, ATTACK_ADDRESSES, FORGET_S, WAIT_MAX_S, LoginAttempts
from voicequeue.storage.sessions import SESSION_S, SESSIONS_MAX, Sessions


@pytest.fixture
def sessions(store: Store) -> Sessions:
    """No session yet."""
    return store.sessions


@pytest.fixture
def logins(store: Store) -> LoginAttempts:
    """No failed login yet."""
    return store.logins


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────


def test_a_session_is_found_by_its_token_alone(sessions: Sessions, redis: Redis, prefix: str) -> None:
    """Redis holds no token, and what it holds is none."""
    token = sessions.begin("ana", "proof", NOW)
    session = sessions.find(token)

    assert session is not None
    assert (session.name, session.proof) == ("ana", "proof")
    assert not [key for key in redis.scan_iter(f"*{prefix}*") if token in f"{key}"]
    for other in (session.id, token[:-1], token + "x", "", "*", "ana", "x" * 43):
        assert sessions.find(other) is None


def test_a_session_ends_when_it_is_ended_and_by_its_time(sessions: Sessions, redis: Redis, prefix: str) -> None:
    """And nothing of it is left."""
    mine, other = (sessions.begin("ana", "proof", NOW) for _ in range(2))
    session = sessions.find(mine)
    assert session is not None
    assert 0 < redis.ttl(f"{{{prefix}}}:session:{session.id}") <= SESSION_S

    sessions.put_notice(session.id, "done")
    sessions.end(session.id, "ana")

    assert sessions.find(mine) is None
    assert sessions.find(other) is not None
    assert not [key for key in redis.scan_iter(f"*{prefix}*") if session.id in f"{key}"]


def test_all_sessions_of_a_key_end_together_and_no_other(sessions: Sessions) -> None:
    """In one step; it can log in again."""
    mine, theirs = [sessions.begin("ana", "proof", NOW) for _ in range(3)], sessions.begin("bo", "proof", NOW)

    sessions.end_all("ana")

    assert [sessions.find(token) for token in mine] == [None] * 3
    assert sessions.find(theirs) is not None
    assert sessions.find(sessions.begin("ana", "proof", NOW)) is not None


def test_a_key_has_so_many_sessions_at_most(sessions: Sessions) -> None:
    """The oldest end: logging in again and again fills no memory."""
    tokens = [sessions.begin("ana", "proof", NOW + at) for at in range(SESSIONS_MAX + 2)]

    assert [sessions.find(token) is None for token in tokens] == [True] * 2 + [False] * SESSIONS_MAX


def test_a_notice_is_shown_once(sessions: Sessions) -> None:
    """On the next page of that session; half a character does no harm."""
    session = sessions.find(sessions.begin("ana", "proof", NOW))
    assert session is not None

    sessions.put_notice(session.id, "a\ud800" + "b" * 2_000)

    assert sessions.take_notice(session.id).startswith("a\ufffdbbb")
    assert sessions.take_notice(session.id) == ""


def test_the_audit_finds_nothing_wrong_with_logins(
    sessions: Sessions, logins: LoginAttempts, redis: Redis, prefix: str
) -> None:
    """They are no jobs."""
    session = sessions.find(sessions.begin("ana", "proof", NOW))
    assert session is not None
    sessions.put_notice(session.id, "done")
    logins.begin("192.0.2.7", NOW)

    everything_agrees(redis, prefix)


# ── failed logins ─────────────────────────────────────────────────────────────────────────────────


def test_an_address_waits_longer_from_failure_to_failure(logins: LoginAttempts) -> None:
    """Five are free; then seconds, and at most minutes. What is tried while it waits is not counted."""
    now, waits = NOW, []
    for _ in range(13):
        wait_s = logins.begin("192.0.2.7", now)
        if wait_s:
            waits.append(wait_s)
            assert logins.begin("192.0.2.7", now + wait_s / 2) == pytest.approx(wait_s / 2, abs=0.01)
            now += wait_s
            assert logins.begin("192.0.2.7", now) == 0
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300][: len(waits)], abs=0.01)
    assert max(waits) <= WAIT_MAX_S


def test_many_tries_at_once_are_counted_before_their_keys_are_looked_at(logins: LoginAttempts) -> None:
    """A thousand in the same moment are five."""
    assert [logins.begin("192.0.2.7", NOW) for _ in range(100)].count(0) == 5


@pytest.mark.parametrize("same", [["::ffff:192.0.2.7", "192.0.2.7"], ["2001:db8::1", "2001:db8::ffff:2"], ["", "x"]])
def test_addresses_of_one_caller_are_one(logins: LoginAttempts, same: list[str]) -> None:
    """All of a /64 is one; what is no address is one."""
    for number in range(5):
        logins.begin(same[number % 2], NOW)

    assert all(logins.begin(address, NOW) for address in same)
    for other in ("192.0.2.8", "2001:db8:0:1::1"):
        assert logins.begin(other, NOW) == 0


def test_a_right_key_takes_back_its_own_try_alone(logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """Who has a key guesses no other one for it; who never failed leaves no trace."""
    for _ in range(5):
        logins.begin("192.0.2.7", NOW)
        logins.begin("192.0.2.8", NOW)
        logins.succeeded("192.0.2.8")

    later = NOW + 6
    assert (logins.begin("192.0.2.7", later), logins.begin("192.0.2.7", later) > 0) == (0, True)
    logins.succeeded("192.0.2.7")
    assert logins.begin("192.0.2.7", later) > 0
    assert redis.hkeys(f"{{{prefix}}}:failed_logins:attempts") == ["192.0.2.7"]


def test_failures_are_forgotten(logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """Some minutes after the last one."""
    for _ in range(5):
        logins.begin("192.0.2.7", NOW)
    later = NOW + FORGET_S + 1
    logins.begin("192.0.2.8", later)

    assert redis.hkeys(f"{{{prefix}}}:failed_logins:attempts") == ["192.0.2.8"]
    assert 0 < redis.ttl(f"{{{prefix}}}:failed_logins") <= FORGET_S
    assert 0 < redis.ttl(f"{{{prefix}}}:failed_logins:attempts") <= FORGET_S


def test_a_flood_from_many_addresses_leaves_each_address_one_try_and_locks_no_other_out(logins: LoginAttempts) -> None:
    """An address from which nothing failed gets in at once, whatever others do; of each other one more is too many."""
    flood = [f"198.51.100.{number}" for number in range(ATTACK_ADDRESSES)]
    assert [logins.begin(address, NOW) for address in flood] == [0] * ATTACK_ADDRESSES

    assert all(logins.begin(address, NOW + 1) for address in flood)
    assert logins.begin("192.0.2.7", NOW + 1) == 0
    assert logins.begin("192.0.2.7", NOW + 1) > 0
    assert logins.begin("192.0.2.7", NOW + 120) == 0  # it is over


def test_a_flood_fills_no_memory(logins: LoginAttempts, redis: Redis, prefix: str) -> None:
    """So many addresses are remembered, the latest."""
    names = {f"old-{number}": NOW - 200 for number in range(ADDRESSES_MAX)}
    redis.zadd(f"{{{prefix}}}:failed_logins", names)
    redis.hset(f"{{{prefix}}}:failed_logins:attempts", mapping=dict.fromkeys(names, 1))

    assert logins.begin("192.0.2.7", NOW) == 0

    assert (
        redis.zcard(f"{{{prefix}}}:failed_logins")
        == redis.hlen(f"{{{prefix}}}:failed_logins:attempts")
        == ADDRESSES_MAX
    )
