"""`alive`: the probe for containers and service managers."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
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

#: redis-py imports this if it is installed, for metrics that a probe does not have. It takes a third of the time.
_METRICS_SDK = "opentelemetry.sdk.metrics"


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
            return "not checked: Redis does not answer, which no restart of a process cures"
        return f"alive: {', '.join(self.processes)}"


def alive(
    queues: Annotated[
        list[str] | None, option("NAME", "--queue", help="Only processes for this queue; repeat it for several.")
    ] = None,
    name: Annotated[str, option("NAME", help="Only the process with this name, such as worker-1@host.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check that the processes of this host consume their queues: a probe for containers.

    Needs REDIS_URL and VOICEQUEUE_PREFIX only. Exit codes: 0 if they do, or if Redis does not answer within 3 seconds,
    because a restart would not help; 1 if a process does not consume a queue, or none is running; 2 for wrong usage.
    """
    for queue in queues or ():
        if queue not in QUEUE_NAMES:
            raise typer.BadParameter(f"there is no queue {queue!r}; the queues are {', '.join(QUEUE_NAMES)}")
    sys.modules.setdefault(_METRICS_SDK, None)  # type: ignore[arg-type]  # Python's way to make an import fail
    findings = find_problems(_processes_of_this_host(), queues or (), name)
    if as_json:
        print_json(findings.as_dict())
    else:
        out.print(escape_untrusted(findings), soft_wrap=True)
    raise typer.Exit(int(bool(findings.problems)))


def find_problems(processes: Sequence[ProcessHeartbeat] | None, queues: Sequence[str], name: str = "") -> Findings:
    """Return what is wrong with the processes of this host; None: Redis does not answer. Pure.

    Without `queues`, those of all processes are checked.
    """
    from voicequeue.storage.monitoring.consumption import consumed_queues, stalled_consumers  # noqa: PLC0415

    if processes is None:
        return Findings(None, ())
    named = [process for process in processes if name in ("", process.name)]
    checked = [process for process in named if consumed_queues(process).keys() & set(queues or QUEUE_NAMES)]
    started = {queue for process in checked for queue in consumed_queues(process)}
    subject = f"process {name}" if name else "running process of this host"
    problems = [f"no {subject} consumes the queue {queue}" for queue in queues if queue not in started]
    if not checked and not queues:
        problems.append(f"no {subject} consumes a queue")
    stalled = (consumer for consumer in stalled_consumers(checked) if not queues or consumer.queue in queues)
    return Findings([process.name for process in checked], [*problems, *map(str, stalled)])


def _processes_of_this_host() -> list[ProcessHeartbeat] | None:
    """Return the running processes of this host; None if Redis does not answer in time. Raises CommandSetupError and
    SecretFileError."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    from voicequeue.auth.secret_files import read_secret  # noqa: PLC0415
    from voicequeue.storage.connection.client import DEFAULT_URL, connect  # noqa: PLC0415
    from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, Keyspace  # noqa: PLC0415
    from voicequeue.storage.heartbeats import KINDS, Heartbeats  # noqa: PLC0415

    try:
        redis = connect(read_secret(os.environ, "REDIS_URL") or DEFAULT_URL)
        keyspace = Keyspace(redis, os.environ.get("VOICEQUEUE_PREFIX") or DEFAULT_PREFIX)
    except ValueError as error:
        raise CommandSetupError(f"{error}; see REDIS_URL and VOICEQUEUE_PREFIX") from None

    def read() -> list[ProcessHeartbeat] | None:
        try:
            seconds, microseconds = redis.time()
            now = seconds + microseconds / 1e6
            running = [process for kind in KINDS for process in Heartbeats(keyspace, kind).alive(now)]
        except (RedisError, OSError):
            return None
        return [process for process in running if process.host == socket.gethostname()]

    return _within(ANSWER_TIMEOUT_S, read)


def _within(seconds: float, read: Callable[[], T | None]) -> T | None:
    """Return the result of `read`; None if it takes longer. Its thread does not keep the process running."""
    results: list[T | None] = []
    thread = threading.Thread(target=lambda: results.append(read()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None
