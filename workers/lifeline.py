"""Stops a worker without cutting a POST: what is on its way is finished, and nothing new is sent.

The main process holds one end of a pipe, its children hold the other. The pipe closes when the main process begins to
stop, and also when it dies, whatever killed it. Seen with Celery 5.7.0 and billiard 4.3.2: a child knows nothing of a
stop and goes on with its task; it dies at once of a SIGTERM, SIGHUP or SIGQUIT that is sent to the whole process
group; and it is killed with its main process. Each of these cuts POSTs that may have been charged.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from billiard.util import set_pdeathsig  # type: ignore[attr-defined]  # its types leave it out
from celery import bootsteps
from celery.signals import task_postrun, task_prerun, worker_process_init, worker_shutting_down

log = logging.getLogger("voicequeue.stop")

#: Sent to a whole process group by systemd, Procfile runners and terminals. The main process ends its children itself.
GROUP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)

#: Seconds between two looks at whether the main process still lives, once it stops.
ALIVE_CHECK_S = 0.2

#: Seconds that a child without a main process may take to finish its task: it may wait for Redis with paid answers.
ORPHANED_TASK_S = 900.0


class Lifeline:
    """Connects the children of a worker to its main process; one per process, shared by fork."""

    def __init__(self) -> None:
        self._is_cut = False
        self._main_pid: int | None = None
        self._read_end = self._write_end = -1
        self._in_task = threading.Lock()

    def is_cut(self) -> bool:
        """Return whether this worker is stopping, so that no POST may begin."""
        return self._is_cut

    @property
    def is_held_here(self) -> bool:
        """Whether this is the main process, which may do its tasks itself (`--pool solo`)."""
        return self._main_pid == os.getpid()

    def hold(self) -> None:
        """Open the pipe in the main process, before its children are forked."""
        self._main_pid = os.getpid()
        self._read_end, self._write_end = os.pipe()

    def cut(self) -> None:
        """Begin to stop, in the main process. Safe in a signal handler, and more than once."""
        self._is_cut = True
        if self._write_end >= 0:
            # Before it is closed: a child that is forked from now on must not close a number that is used again.
            write_end, self._write_end = self._write_end, -1
            os.close(write_end)

    def follow(self, on_orphaned: Callable[[], object]) -> None:
        """Follow the main process, in a child: end after the current task where the main process has died."""
        if self._write_end >= 0:
            os.close(self._write_end)
        task_prerun.connect(self._enter_task, weak=False)
        task_postrun.connect(self._leave_task, weak=False)
        threading.Thread(target=self._watch, args=(on_orphaned,), name="lifeline", daemon=True).start()

    def _enter_task(self, **_: object) -> None:
        self._in_task.acquire()

    def _leave_task(self, **_: object) -> None:
        self._in_task.release()

    def _watch(self, on_orphaned: Callable[[], object]) -> None:
        if self._main_pid is None:  # this child was not forked: it has no pipe
            self._main_pid = os.getppid()
        else:
            os.read(self._read_end, 1)  # returns when the pipe is closed
            self._is_cut = True
        while os.getppid() == self._main_pid:
            time.sleep(ALIVE_CHECK_S)
        self._is_cut = True
        self._in_task.acquire(timeout=ORPHANED_TASK_S)
        try:
            on_orphaned()
        finally:
            os._exit(os.EX_OK)


#: This process's.
lifeline = Lifeline()


def shield() -> None:
    """Leave the end of this child to its main process: no signal to the group, nor the other's death, cuts its task."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # not on Linux, where there is no such signal to begin with
        set_pdeathsig(0)


def install(on_orphaned: Callable[[], object]) -> None:
    """Connect the lifeline to Celery's signals; `on_orphaned` is called before a child without a main process ends."""

    def begin_child(**_: object) -> None:
        if not lifeline.is_held_here:
            shield()
            lifeline.follow(on_orphaned)

    worker_process_init.connect(begin_child, weak=False)
    worker_shutting_down.connect(lambda **_: lifeline.cut(), weak=False)


class LifelineStep(bootsteps.StartStopStep):
    """Holds the lifeline in the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as `nohup` sets it
        lifeline.hold()

    def start(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Stop in the same way at a hangup and at SIGQUIT as at SIGTERM.

        Celery restarts at a hangup, as an orphan where a terminal was closed; and at SIGQUIT it waits for its children
        before it says that it stops.
        """
        stop = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if self._ignores_hangup else stop)
        signal.signal(signal.SIGQUIT, stop)

    def close(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Cut it however the worker was asked to stop."""
        lifeline.cut()
        log.info("stopping: what is on its way to upstream is finished, nothing new is sent")
