"""Limits on concurrent callbacks to one host, and pauses of hosts that do not respond."""

from __future__ import annotations

import threading

from tasks.callbacks.host_limiter import POSTPONE_MAX_S, HostLimiter

NOW = 1_000.0


def fail_repeatedly(hosts: HostLimiter, host: str, times: int, now: float = NOW) -> None:
    """Make `times` attempts in a row that fail."""
    for _ in range(times):
        assert hosts.try_acquire(host, now) is None
        hosts.release(host, now, is_available=False)


def test_concurrent_callbacks_to_one_host_are_limited() -> None:
    """Callbacks beyond the limit are postponed, each to a different time; other hosts are not affected."""
    hosts = HostLimiter(wait_s=0, max_concurrent=2)

    assert [hosts.try_acquire("a", NOW) for _ in range(2)] == [None, None]
    postponed = [hosts.try_acquire("a", NOW) for _ in range(3)]
    assert hosts.try_acquire("b", NOW) is None

    assert all(due is not None and due > NOW for due in postponed)
    assert len(set(postponed)) == 3
    hosts.release("a", NOW, is_available=True)
    assert hosts.try_acquire("a", NOW) is None


def test_a_callback_to_a_busy_fast_host_waits_for_a_slot() -> None:
    """Postponing it would delay it by a whole lease."""
    hosts = HostLimiter(max_concurrent=1, wait_s=20)
    assert hosts.try_acquire("a", NOW) is None
    entered: list[float | None] = []
    waiting = threading.Thread(target=lambda: entered.append(hosts.try_acquire("a", NOW)))
    waiting.start()

    hosts.release("a", NOW, is_available=True, took_s=0.1)
    waiting.join(10)

    assert entered == [None]


def test_no_callback_waits_for_a_host_that_became_slow() -> None:
    """Callbacks that already wait are postponed immediately."""
    hosts = HostLimiter(max_concurrent=2, wait_s=20, max_concurrent_slow=1)
    assert [hosts.try_acquire("a", NOW) for _ in range(2)] == [None, None]
    entered: list[float | None] = []
    waiting = threading.Thread(target=lambda: entered.append(hosts.try_acquire("a", NOW)))
    waiting.start()

    hosts.release("a", NOW, is_available=False)
    waiting.join(10)

    assert entered
    assert entered != [None]


def test_a_host_is_paused_after_failures_in_a_row_and_then_gets_one_callback() -> None:
    """After the pause, callbacks are sent one at a time until one succeeds."""
    hosts = HostLimiter(wait_s=0, failure_threshold=3, pause_s=30)
    fail_repeatedly(hosts, "a", 3)

    assert (hosts.try_acquire("a", NOW + 29.9) or 0) >= NOW + 30
    assert hosts.try_acquire("a", NOW + 30) is None
    assert hosts.try_acquire("a", NOW + 30) is not None
    hosts.release("a", NOW + 31, is_available=True)
    assert [hosts.try_acquire("a", NOW + 31) for _ in range(4)] == [None] * 4


def test_a_response_resets_the_count_of_failures() -> None:
    """Only failures in a row pause a host."""
    hosts = HostLimiter(wait_s=0, failure_threshold=3)
    for _ in range(3):
        fail_repeatedly(hosts, "a", 2)
        assert hosts.try_acquire("a", NOW) is None
        hosts.release("a", NOW, is_available=True)

    assert hosts.try_acquire("a", NOW) is None


def test_all_slow_hosts_share_a_few_slots() -> None:
    """A fast host is not affected."""
    hosts = HostLimiter(wait_s=0, max_concurrent_slow=3)
    for number in range(10):
        assert hosts.try_acquire(f"slow-{number}", NOW) is None
        hosts.release(f"slow-{number}", NOW, is_available=True, took_s=5)

    entered = [hosts.try_acquire(f"slow-{number}", NOW) for number in range(10)]

    assert entered.count(None) == 3
    assert hosts.try_acquire("fast", NOW) is None
    hosts.release("slow-0", NOW, is_available=True, took_s=0.1)
    assert hosts.try_acquire("slow-9", NOW) is None


def test_a_postponement_is_limited() -> None:
    """This holds for any number of callbacks to a slow host."""
    hosts = HostLimiter(wait_s=0, max_concurrent=1, pause_s=30)
    assert hosts.try_acquire("a", NOW) is None
    hosts.release("a", NOW, is_available=True, took_s=60)
    assert hosts.try_acquire("a", NOW) is None

    postponed = [hosts.try_acquire("a", NOW) or 0 for _ in range(1_000)]

    assert min(postponed) > NOW
    assert max(postponed) <= NOW + POSTPONE_MAX_S + 30


def test_the_number_of_remembered_hosts_is_limited() -> None:
    """Hosts that are still paused are kept."""
    hosts = HostLimiter(wait_s=0, failure_threshold=1, pause_s=30)
    for number in range(3_000):
        fail_repeatedly(hosts, f"gone-{number}", 1, NOW + number)

    assert len(hosts._hosts) <= 1_001
    assert hosts.try_acquire("gone-2999", NOW + 3_000) is not None


def test_slow_hosts_of_one_namespace_leave_slots_to_those_of_another() -> None:
    """Each may use as many, until most threads are busy; a host is known for each namespace by itself."""
    hosts = HostLimiter(wait_s=0, max_concurrent=1, max_concurrent_slow=2)
    names = [[f"{namespace}/host-{number}" for number in range(3)] for namespace in ("hostile", "shop", "", "last")]
    for name in (name for of_namespace in names for name in of_namespace):
        fail_repeatedly(hosts, name.removeprefix("/"), 1)

    acquired = [[hosts.try_acquire(name.removeprefix("/"), NOW) is None for name in group] for group in names]

    assert acquired == [[True, True, False]] * 3 + [[False] * 3]
