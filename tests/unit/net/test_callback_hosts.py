"""How many callbacks are on the way to one host, and which hosts are left alone."""

from __future__ import annotations

import threading

from tasks.callbacks.host_limiter import POSTPONE_MAX_S, HostLimiter

NOW = 1_000.0


def failing(hosts: HostLimiter, host: str, times: int, now: float = NOW) -> None:
    """So many tries fail, one after the other."""
    for _ in range(times):
        assert hosts.try_acquire(host, now) is None
        hosts.release(host, now, is_available=False)


def test_a_host_gets_few_at_once_and_the_others_none_the_less() -> None:
    """Who comes too early is told to come again, each at a time of its own."""
    hosts = HostLimiter(wait_s=0, max_concurrent=2)

    assert [hosts.try_acquire("a", NOW) for _ in range(2)] == [None, None]
    later = [hosts.try_acquire("a", NOW) for _ in range(3)]
    assert hosts.try_acquire("b", NOW) is None

    assert all(each is not None and each > NOW for each in later)
    assert len(set(later)) == 3
    hosts.release("a", NOW, is_available=True)
    assert hosts.try_acquire("a", NOW) is None


def test_who_finds_no_room_at_a_brisk_host_waits_a_moment_for_it() -> None:
    """Being put off would cost a whole round."""
    hosts = HostLimiter(max_concurrent=1, wait_s=20)
    assert hosts.try_acquire("a", NOW) is None
    entered: list[float | None] = []
    waiting = threading.Thread(target=lambda: entered.append(hosts.try_acquire("a", NOW)))
    waiting.start()

    hosts.release("a", NOW, is_available=True, took_s=0.1)
    waiting.join(10)

    assert entered == [None]


def test_nobody_waits_at_a_host_that_has_become_slow() -> None:
    """Those who wait already go away at once."""
    hosts = HostLimiter(max_concurrent=2, wait_s=20, max_concurrent_slow=1)
    assert [hosts.try_acquire("a", NOW) for _ in range(2)] == [None, None]
    entered: list[float | None] = []
    waiting = threading.Thread(target=lambda: entered.append(hosts.try_acquire("a", NOW)))
    waiting.start()

    hosts.release("a", NOW, is_available=False)
    waiting.join(10)

    assert entered
    assert entered != [None]


def test_a_host_that_does_not_answer_is_left_alone_and_then_tried_with_one() -> None:
    """After three failures in a row; when its rest is over one is let through, until one arrives."""
    hosts = HostLimiter(wait_s=0, failure_threshold=3, pause_s=30)
    failing(hosts, "a", 3)

    assert (hosts.try_acquire("a", NOW + 29.9) or 0) >= NOW + 30
    assert hosts.try_acquire("a", NOW + 30) is None
    assert hosts.try_acquire("a", NOW + 30) is not None
    hosts.release("a", NOW + 31, is_available=True)
    assert [hosts.try_acquire("a", NOW + 31) for _ in range(4)] == [None] * 4


def test_an_answer_in_between_makes_it_a_host_that_is_there() -> None:
    """Failures count in a row alone."""
    hosts = HostLimiter(wait_s=0, failure_threshold=3)
    for _ in range(3):
        failing(hosts, "a", 2)
        assert hosts.try_acquire("a", NOW) is None
        hosts.release("a", NOW, is_available=True)

    assert hosts.try_acquire("a", NOW) is None


def test_slow_hosts_share_few_places_among_all_of_them() -> None:
    """However many there are; a brisk one finds its place."""
    hosts = HostLimiter(wait_s=0, max_concurrent_slow=3)
    for number in range(10):
        assert hosts.try_acquire(f"slow-{number}", NOW) is None
        hosts.release(f"slow-{number}", NOW, is_available=True, took_s=5)

    entered = [hosts.try_acquire(f"slow-{number}", NOW) for number in range(10)]

    assert entered.count(None) == 3
    assert hosts.try_acquire("brisk", NOW) is None
    hosts.release("slow-0", NOW, is_available=True, took_s=0.1)
    assert hosts.try_acquire("slow-9", NOW) is None


def test_nobody_is_put_off_for_long() -> None:
    """However many wait for a host that is slow."""
    hosts = HostLimiter(wait_s=0, max_concurrent=1, pause_s=30)
    assert hosts.try_acquire("a", NOW) is None
    hosts.release("a", NOW, is_available=True, took_s=60)
    assert hosts.try_acquire("a", NOW) is None

    later = [hosts.try_acquire("a", NOW) or 0 for _ in range(1_000)]

    assert min(later) > NOW
    assert max(later) <= NOW + POSTPONE_MAX_S + 30


def test_hosts_without_number_are_not_remembered_without_end() -> None:
    """Those that are still to be left alone are."""
    hosts = HostLimiter(wait_s=0, failure_threshold=1, pause_s=30)
    for number in range(3_000):
        failing(hosts, f"gone-{number}", 1, NOW + number)

    assert len(hosts._hosts) <= 1_001
    assert hosts.try_acquire("gone-2999", NOW + 3_000) is not None
