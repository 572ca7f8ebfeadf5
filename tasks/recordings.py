"""Checks of recordings before their order is sent, in threads of this process: one at a time for each recording.

A host that does not answer delays its own recordings only: few checks run for one host at once, and none for a while
after three in a row have failed. Hosts that answer, new hosts, and those that fail have threads of their own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from redis.exceptions import RedisError

from tasks.sources import RecordingSources, SourceError
from voicequeue.domain.recording_check import CheckOutcome
from voicequeue.domain.spec import is_object_url
from voicequeue.domain.states import FailureCode
from voicequeue.domain.timeouts import CheckTimeouts
from voicequeue.errors import InvalidAudioError
from voicequeue.ingest.preflight import TemporaryFailure
from voicequeue.ingest.recording_head import HeadChecker
from voicequeue.net.http_types import Target, UrlNotAllowed
from voicequeue.net.per_host_executor import PerHostExecutor
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.monitoring.metrics import MetricsCounter
from voicequeue.storage.recordings import Recordings

log = logging.getLogger("voicequeue")

#: Checks at once, for hosts of each condition; and for one host.
MAX_CONCURRENT, MAX_PER_HOST = 32, 8

#: Checks at once for one host that has not answered yet.
MAX_PER_NEW_HOST = 4

#: Failed checks in a row after which a host is left alone for a while.
FAILURES_MAX = 3

#: Pauses after which a host's failures no longer count.
_FAILURES_EXPIRE_AFTER = 2

#: The hosts that are remembered.
_HOSTS_MAX = 10_000

#: Kinds of errors that say something about the recording itself.
_UNFIT = frozenset({"wrong_format", "too_short", "too_long", "truncated"})


class _Condition(Enum):
    NEW = auto()
    ANSWERING = auto()
    FAILING = auto()


@dataclass(slots=True)
class _Host:
    condition: _Condition = _Condition.NEW
    failures: int = 0
    failed_at: float = 0.0  # by the monotonic clock
    is_slow: bool = False


class RecordingChecks:
    """The checks of one process. Safe to share between threads."""

    def __init__(
        self,
        checker: HeadChecker,
        recordings: Recordings,
        metrics: MetricsCounter,
        *,
        sources: RecordingSources,
        clock: Clock | Callable[[], float],
        timeouts: CheckTimeouts,
    ) -> None:
        self.recordings, self.timeouts = recordings, timeouts
        self._checker, self._sources, self._metrics, self._clock = checker, sources, metrics, clock
        self._executors = {
            condition: PerHostExecutor(
                max_workers=MAX_CONCURRENT,
                per_host=MAX_PER_NEW_HOST if condition is _Condition.NEW else MAX_PER_HOST,
            )
            for condition in _Condition
        }
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._running: dict[str, Future[CheckOutcome | None]] = {}
        self._lock = threading.Lock()

    def start(self, url: str, *, is_last: bool = False) -> Future[CheckOutcome | None]:
        """Check a recording; return the check that runs for it, if there is one.

        Its outcome is None if the host is left alone, except for the last check of a job.
        """
        name = _host(url)
        with self._lock:
            if (running := self._running.get(url)) is not None and not running.done():
                return running
            host = self._host(name)
            if not is_last and self._pause_s(host):
                return _not_checked()
            work = partial(self._check, name, url, is_last=is_last)
            future = self._executors[host.condition].submit(name, work)
            if not future.done():
                self._running[url] = future
            return future

    def pause_s(self, url: str) -> float:
        """Return the seconds for which the host of a recording is left alone; 0 if it is not."""
        with self._lock:
            return self._pause_s(self._host(_host(url)))

    def is_slow(self, url: str) -> bool:
        """Return whether the last check at the host of a recording took longer than a job keeps its slot."""
        with self._lock:
            return self._host(_host(url)).is_slow

    def note_late(self, url: str) -> None:
        """Remember that a check at this host has taken longer than a job keeps its slot."""
        with self._lock:
            host = self._host(_host(url))
            host.is_slow = True
            host.condition = _Condition.FAILING

    def _check(self, name: str, url: str, *, is_last: bool) -> CheckOutcome | None:
        """Check a recording and share the outcome with other workers."""
        try:
            if not is_last and self._is_paused(name):
                return None
            started = time.monotonic()
            outcome = self._attempt(url)
            self._record_host(name, outcome, is_slow=time.monotonic() - started > self.timeouts.hold_s)
            self._metrics.increment("recording_check", outcome.result)
            with suppress(RedisError):
                self.recordings.record_outcome(url, outcome)
            return outcome
        finally:
            with self._lock:
                self._running.pop(url, None)

    def _attempt(self, url: str) -> CheckOutcome:
        at = self._clock()
        try:
            self._checker.attempt(self._sources.link(url))
        except SourceError as error:
            if error.is_temporary:
                return _temporary(at, str(error))
            return CheckOutcome(at, FailureCode.RECORDING_UNREACHABLE, str(error))
        except TemporaryFailure as error:
            return _temporary(at, error.unfit.reason, error.retry_after_s)
        except InvalidAudioError as error:
            if error.kind == "too_slow":
                return _temporary(at, error.reason)
            code = FailureCode.RECORDING_UNFIT if error.kind in _UNFIT else FailureCode.RECORDING_UNREACHABLE
            return CheckOutcome(at, code, error.reason)
        except Exception as error:  # a defect counts as a failed check; otherwise the job would never end
            log.exception("a defect")
            return _temporary(at, f"a defect of voicequeue: {type(error).__name__}")
        return CheckOutcome(at)

    def _is_paused(self, name: str) -> bool:
        with self._lock:
            return self._pause_s(self._host(name)) > 0

    def _pause_s(self, host: _Host) -> float:
        if host.failures < FAILURES_MAX:
            return 0.0
        return max(0.0, host.failed_at + self.timeouts.host_pause_s - time.monotonic())

    def _record_host(self, name: str, outcome: CheckOutcome, *, is_slow: bool) -> None:
        now = time.monotonic()
        with self._lock:
            host = self._host(name)
            host.is_slow = is_slow
            if not outcome.is_temporary:
                host.condition, host.failures = _Condition.ANSWERING, 0
                return
            if now - host.failed_at > _FAILURES_EXPIRE_AFTER * self.timeouts.host_pause_s:
                host.failures = 0
            host.condition, host.failures, host.failed_at = _Condition.FAILING, host.failures + 1, now

    def _host(self, name: str) -> _Host:
        host = self._hosts.setdefault(name, _Host())
        self._hosts.move_to_end(name)
        if len(self._hosts) > _HOSTS_MAX:
            self._hosts.popitem(last=False)
        return host


def _temporary(at: float, message: str, retry_after_s: float = 0.0) -> CheckOutcome:
    return CheckOutcome(at, FailureCode.RECORDING_UNREACHABLE, message, is_temporary=True, retry_after_s=retry_after_s)


def _not_checked() -> Future[CheckOutcome | None]:
    future: Future[CheckOutcome | None] = Future()
    future.set_result(None)
    return future


def _host(url: str) -> str:
    if is_object_url(url):
        return url.removeprefix("s3://").partition("/")[0]
    try:
        target = Target.parse(url)
    except UrlNotAllowed:
        return ""
    return f"{target.host}:{target.port}"
