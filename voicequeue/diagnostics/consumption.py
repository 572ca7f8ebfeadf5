"""Check that the running processes consume the queues that they were started for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from voicequeue.diagnostics.check_result import CheckResult, Level
from voicequeue.storage.heartbeats import ProcessHeartbeat
from voicequeue.storage.monitoring.consumption import consumed_queues, stalled_consumers, unconsumed_queues
from voicequeue.texts import pluralize

_RESTART = "restart that process; nothing is lost meanwhile (docs/guides/runbook.md#voicequeueconsumerstalled)"


def results(processes: Sequence[ProcessHeartbeat], messages: Mapping[str, int]) -> Iterator[CheckResult]:
    """Evaluate the processes; `messages` is the number of messages by queue.

    A consumer that stalls is an error if no other process consumes its queue. Queues without any process are an error
    if messages wait; where no process of a kind runs, `checkup` reports that.
    """
    unconsumed = unconsumed_queues(processes, messages, {process.kind for process in processes})
    for consumer in stalled_consumers(processes):
        level = Level.ERROR if consumer.queue in unconsumed else Level.WARNING
        yield CheckResult("consumers", level, str(consumer), _RESTART)
    started = {queue for process in processes for queue in consumed_queues(process)}
    for queue in unconsumed:
        if queue not in started:
            what = f"{pluralize(messages[queue], 'message')} in the queue {queue}, which no running process consumes"
            yield CheckResult("consumers", Level.ERROR, what, f"start a process that consumes it: -Q {queue}")
