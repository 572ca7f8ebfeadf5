"""The lock between the processes of one worker."""

from __future__ import annotations

import os
import signal
import threading

from tasks.process_lock import ProcessLock
from tests.conftest import eventually
from tests.support.forked import forked


def opened() -> ProcessLock:
    """Return a lock that can be acquired."""
    lock = ProcessLock()
    lock.open()
    return lock


def test_one_process_holds_the_lock() -> None:
    """Another one gets it after the release."""
    lock = opened()
    assert lock.try_acquire()

    with forked(lambda: check(not lock.try_acquire() and lock.is_held_elsewhere())):
        lock.release()
        with forked(lambda: check(lock.try_acquire())):
            assert lock.is_held_elsewhere()
            assert not lock.try_acquire()


def check(is_right: bool) -> None:
    """Fail a forked process."""
    assert is_right


def test_a_killed_process_releases_the_lock() -> None:
    """The operating system does it."""
    lock = opened()
    with forked(lock.try_acquire) as pid:
        assert lock.is_held_elsewhere()
        os.kill(pid, signal.SIGKILL)
        eventually(lock.try_acquire)


def test_looking_at_a_free_lock_does_not_make_it_look_held() -> None:
    """Several processes may look at once."""
    lock = opened()
    looked = threading.Event()

    def look() -> None:
        for _ in range(1_000):
            assert not lock.is_held_elsewhere()

    with forked(look):
        look()
        looked.set()
    assert looked.is_set()


def test_a_lock_that_was_not_opened_is_never_held() -> None:
    """A worker with one process, or with threads, opens none."""
    lock = ProcessLock()

    assert not lock.is_open
    assert not lock.try_acquire()
    assert not lock.is_held_elsewhere()
    lock.release()
