"""`alive`: the probe for containers and service managers."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from voicequeue.cli.terminal import AsJson, CommandSetupError, escape_untrusted, option, out, print_json
from voicequeue.storage.celery_queues import QUEUE_NAMES

if TYPE_CHECKING:
    from voicequeue.storage.heartbeats import ProcessHeartbeat

T = TypeVar("T")

#: The time for Redis to answer (seconds). A probe that is itself cut off would count as a failure.
ANSWER_TIMEOUT_S = 3.0

#: A host without a process is checked again for this long, with this pause (seconds): after an outage of Redis,
#: heartbeats arrive within seconds.
RECHECK_S, PAUSE_S = 5.0, 1.0

#: redis-py imports this if it is installed, for metrics that a probe does not have. It takes a third of the time.
_METRICS_SDK = "opentelemetry.sdk.metrics"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The processes of this host that have sent a heartbeat within a minute before `now`, the queue's time."""

    now: float
    processes: Sequence[ProcessHeartbeat]


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of the probe: the processes that it checked, and what is wrong; `processes` is None without Redis."""

    processes: Sequence[str] | None
    problems: Sequence[str]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON representation."""
        return {
            "alive": not self.problems,
            "checked": self.processes is not None,
            "processes": list(self.processes or ()),
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        if self.problems:
            return "; ".join(self.problems)
        if self.processes is None:
            return "not checked: Redis does not answer, or refuses the login or writes, which no restart cures"
        return f"alive: {', '.join(self.processes)}"


def alive(
    queues: Annotated[
        list[str] | None, option("NAME", "--queue", help="Only processes for this queue; repeat it for several.")
    ] = None,
    name: Annotated[str, option("NAME", help="Only the process with this name, such as worker-1@host.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check that the processes of this host consume their queues: a probe for containers.

    Needs REDIS_URL and VOICEQUEUE_PREFIX only. Exit codes: 0 if they do, or if Redis does not answer within 3 seconds
    or accepts no writes, because a restart would not help; 1 if a process does not consume a queue, or none is running;
    2 for wrong usage.
    """
    for queue in queues or ():
        if queue not in QUEUE_NAMES:
            raise typer.BadParameter(f"there is no queue {queue!r}; the queues are {', '.join(QUEUE_NAMES)}")
    sys.modules.setdefault(_METRICS_SDK, None)  # type: ignore[arg-type]  # Python's way to make an import fail
    findings = _check(_reader(), queues or (), name)
    if as_json:
        print_json(findings.as_dict())
    else:
        out.print(escape_untrusted(findings))
    raise typer.Exit(int(bool(findings.problems)))


def _check(read: Callable[[], Snapshot | None], queues: Sequence[str], name: str) -> Findings:
    """Return the findings, after some time if there is no process."""
    give_up_at = time.monotonic() + RECHECK_S
    while True:
        findings = find_problems(_within(ANSWER_TIMEOUT_S, read), queues, name)
        if findings.processes or not findings.problems or time.monotonic() >= give_up_at:
            return findings
        time.sleep(PAUSE_S)


def find_problems(snapshot: Snapshot | None, queues: Sequence[str], name: str = "") -> Findings:
    """Return what is wrong with the processes of this host; None: Redis could not be asked. Pure.

    Without `queues`, those of all processes are checked.
    """
    from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S  # noqa: PLC0415
    from voicequeue.storage.monitoring.consumption import consumed_queues, stalled_consumers  # noqa: PLC0415

    if snapshot is None:
        return Findings(None, ())
    named = [process for process in snapshot.processes if name in ("", process.name)]
    checked = [process for process in named if consumed_queues(process).keys() & set(queues or QUEUE_NAMES)]
    started = {queue for process in checked for queue in consumed_queues(process)}
    subject = f"process {name}" if name else "running process of this host"
    problems = [f"no {subject} consumes the queue {queue}" for queue in queues if queue not in started]
    if not checked and not queues:
        problems.append(f"no {subject} consumes a queue")
    # One without a fresh heartbeat may have been killed, and another one may have replaced it.
    fresh = [process for process in checked if process.last_heartbeat > snapshot.now - HEARTBEAT_TIMEOUT_S]
    stalled = (consumer for consumer in stalled_consumers(fresh) if not queues or consumer.queue in queues)
    return Findings([process.name for process in checked], [*problems, *map(str, stalled)])


def _reader() -> Callable[[], Snapshot | None]:
    """Return a function that reads the processes of this host; it returns None if Redis does not answer, or accepts no
    heartbeats.

    Those that have sent no heartbeat for a minute do not count. Raises CommandSetupError and SecretFileError.
    """
    from redis.exceptions import NoPermissionError, RedisError  # noqa: PLC0415

    from voicequeue.auth.secret_files import read_secret  # noqa: PLC0415
    from voicequeue.storage.connection.client import DEFAULT_URL, connect  # noqa: PLC0415
    from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace  # noqa: PLC0415
    from voicequeue.storage.heartbeats import KINDS, Heartbeats  # noqa: PLC0415
    from voicequeue.storage.monitoring.consumption import STALLED_AFTER_S  # noqa: PLC0415

    try:
        redis = connect(read_secret(os.environ, "REDIS_URL") or DEFAULT_URL)
        keyspace = Keyspace(redis, os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX)
    except ValueError as error:
        raise CommandSetupError(f"{error}; see REDIS_URL and VOICEQUEUE_PREFIX") from None

    def read() -> Snapshot | None:
        try:
            seconds, microseconds = redis.time()
            now = seconds + microseconds / 1e6
            heartbeats = [beat for kind in KINDS for beat in Heartbeats(keyspace, kind).since(now - STALLED_AFTER_S)]
            here = [process for process in heartbeats if process.host == socket.gethostname()]
            if not here:
                with suppress(NoPermissionError):  # a login that only reads
                    keyspace.check_writable()
        except (RedisError, OSError):
            return None
        return Snapshot(now, here)

    return read


def _within(seconds: float, read: Callable[[], T | None]) -> T | None:
    """Return the result of `read`; None if it takes longer. Its thread does not keep the process running."""
    results: list[T | None] = []
    thread = threading.Thread(target=lambda: results.append(read()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None
