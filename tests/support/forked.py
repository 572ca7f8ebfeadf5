"""A child process that was forked from the test, and lives until it is released or killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[int]:
    """Fork a process that does this work and waits; yield its pid when the work is done, and kill it at the end."""
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(done_write, b"1")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(done_write)
        assert os.read(done_read, 1) == b"1", "the work failed"
        yield pid
    finally:
        os.close(done_read)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
