"""Stops a worker without interrupting a POST: requests in flight are finished, and no new one is sent.

The main process holds one end of a pipe, its children hold the other. The pipe closes when the main process starts to
stop, and when it exits for any reason. Without it, as observed with Celery 5.7.0 and billiard 4.3.2, a child is not
notified of a stop and continues its task; it exits at once on a SIGTERM, SIGHUP or SIGQUIT sent to the whole process
group; and it is killed with its main process. Each of these interrupts POSTs that may have been charged.
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

log = logging.getLogger("voicequeue.shutdown")

#: Signals that systemd, Procfile runners and terminals send to a whole process group. The main process stops its
#: children itself.
GROUP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)

#: Seconds between two checks whether a stopping main process still runs.
ALIVE_CHECK_S = 0.2

#: Seconds that an orphaned child may take to finish its task: it may hold paid results while it waits for Redis.
ORPHANED_TASK_S = 900.0


class Lifeline:
    """The connection of a worker's children to its main process; one per process, inherited by fork."""

    def __init__(self) -> None:
        self._is_cut = False
        self._main_pid: int | None = None
        self._read_end = self._write_end = -1
        self._in_task = threading.Lock()

    def is_cut(self) -> bool:
        """Return whether this worker is stopping, so that no new POST may be sent."""
        return self._is_cut

    @property
    def is_main_process(self) -> bool:
        """True in the main process, which may run tasks itself (`--pool solo`)."""
        return self._main_pid == os.getpid()

    def hold(self) -> None:
        """Open the pipe in the main process, before its children are forked."""
        self._main_pid = os.getpid()
        self._read_end, self._write_end = os.pipe()

    def cut(self) -> None:
        """Start to stop, in the main process. Safe in a signal handler, and safe to repeat."""
        self._is_cut = True
        if self._write_end >= 0:
            # Clear the descriptor before closing it: a child forked later must not close a number that is reused.
            write_end, self._write_end = self._write_end, -1
            os.close(write_end)

    def monitor_main_process(self, on_orphaned: Callable[[], object]) -> None:
        """Monitor the main process, in a child: exit after the current task if the main process is gone."""
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
        if self._main_pid is None:  # this child was not forked, so it has no pipe
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


#: The lifeline of this process.
lifeline = Lifeline()


def shield() -> None:
    """Ignore signals to the process group and the exit of the main process, so that neither interrupts a task."""
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # not on Linux, where children get no such signal
        set_pdeathsig(0)


def install(on_orphaned: Callable[[], object]) -> None:
    """Connect the lifeline to Celery's signals; `on_orphaned` is called before an orphaned child exits."""

    def start_child(**_: object) -> None:
        if not lifeline.is_main_process:
            shield()
            lifeline.monitor_main_process(on_orphaned)

    worker_process_init.connect(start_child, weak=False)
    worker_shutting_down.connect(lambda **_: lifeline.cut(), weak=False)


class LifelineStep(bootsteps.StartStopStep):
    """Holds the lifeline in the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as `nohup` sets it
        lifeline.hold()

    def start(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Treat SIGHUP and SIGQUIT like SIGTERM.

        Otherwise Celery restarts at a SIGHUP, as an orphan if its terminal was closed, and at a SIGQUIT it waits for
        its children before it signals that it stops.
        """
        stop = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if self._ignores_hangup else stop)
        signal.signal(signal.SIGQUIT, stop)

    def close(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Cut the lifeline, however the stop was requested."""
        lifeline.cut()
        log.info("stopping: requests in flight are finished, no new ones are sent")
