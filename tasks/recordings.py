"""Checks of recordings before their order is sent, in threads of this process: one at a time for each recording.

A host that does not answer delays its own recordings only: few checks run for one host at once, none for a while after
three in a row have failed, and hosts that have answered lately have threads of their own.
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

#: Checks at once, for hosts that have answered lately and for all others; and for one host.
MAX_CONCURRENT, MAX_PER_HOST = 32, 8

#: Failed checks in a row after which a host is left alone for a while.
FAILURES_MAX = 3

#: The hosts that are remembered.
_HOSTS_MAX = 10_000

#: Kinds of errors that say something about the recording itself.
_UNFIT = frozenset({"wrong_format", "too_short", "too_long", "truncated"})


@dataclass(slots=True)
class _Host:
    failures: int = 0
    paused_until: float = 0.0  # by the monotonic clock
    has_answered: bool = False
    message: str = ""


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
            has_answered: PerHostExecutor(max_workers=MAX_CONCURRENT, per_host=MAX_PER_HOST)
            for has_answered in (True, False)
        }
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._running: dict[str, Future[CheckOutcome]] = {}
        self._lock = threading.Lock()

    def start(self, url: str) -> Future[CheckOutcome]:
        """Check a recording; return the check that runs for it, if there is one."""
        name = _host(url)
        with self._lock:
            if (running := self._running.get(url)) is not None and not running.done():
                return running
            has_answered = self._host(name).has_answered
            future = self._executors[has_answered].submit(name, partial(self._check, name, url))
            if not future.done():
                self._running[url] = future
            return future

    def _check(self, name: str, url: str) -> CheckOutcome:
        """Check a recording and share the outcome with other workers."""
        try:
            if (reason := self._reason_to_pause(name)) is not None:
                return self._temporary(reason)
            outcome = self._attempt(url)
            self._record_host(name, outcome)
            self._metrics.increment("recording_check", outcome.result)
            with suppress(RedisError):
                self.recordings.record_outcome(url, outcome)
            return outcome
        finally:
            with self._lock:
                self._running.pop(url, None)

    def _attempt(self, url: str) -> CheckOutcome:
        try:
            self._checker.attempt(self._sources.link(url))
        except SourceError as error:
            if error.is_temporary:
                return self._temporary(str(error))
            return CheckOutcome(self._clock(), FailureCode.RECORDING_UNREACHABLE, str(error))
        except TemporaryFailure as error:
            return self._temporary(error.unfit.reason)
        except InvalidAudioError as error:
            if error.kind == "too_slow":
                return self._temporary(error.reason)
            code = FailureCode.RECORDING_UNFIT if error.kind in _UNFIT else FailureCode.RECORDING_UNREACHABLE
            return CheckOutcome(self._clock(), code, error.reason)
        except Exception as error:  # a defect counts as a failed check; otherwise the job would never end
            log.exception("a defect")
            return self._temporary(f"a defect of voicequeue: {type(error).__name__}")
        return CheckOutcome(self._clock())

    def _temporary(self, message: str) -> CheckOutcome:
        return CheckOutcome(self._clock(), FailureCode.RECORDING_UNREACHABLE, message, is_temporary=True)

    def _reason_to_pause(self, name: str) -> str | None:
        with self._lock:
            host = self._host(name)
            is_paused = host.failures >= FAILURES_MAX and time.monotonic() < host.paused_until
            return host.message if is_paused else None

    def _record_host(self, name: str, outcome: CheckOutcome) -> None:
        with self._lock:
            host = self._host(name)
            host.has_answered = not outcome.is_temporary
            host.failures = host.failures + 1 if outcome.is_temporary else 0
            host.message = outcome.message
            host.paused_until = time.monotonic() + self.timeouts.host_pause_s

    def _host(self, name: str) -> _Host:
        host = self._hosts.setdefault(name, _Host())
        self._hosts.move_to_end(name)
        if len(self._hosts) > _HOSTS_MAX:
            self._hosts.popitem(last=False)
        return host


def _host(url: str) -> str:
    if is_object_url(url):
        return url.removeprefix("s3://").partition("/")[0]
    try:
        target = Target.parse(url)
    except UrlNotAllowed:
        return ""
    return f"{target.host}:{target.port}"
