"""Arguments of `VoiceQueue` that are out of range: the error names the parameter, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.store.conftest import Command
from tests.support.jobs import voice
from voicequeue import Filter, State, VoiceQueue

WRONG: list[tuple[Callable[[VoiceQueue], Any], str]] = [
    (lambda queue: queue.search(Filter(), limit=0), "limit: 0 must be above 0"),
    (lambda queue: queue.list_batches(limit=0), "limit: 0 must be above 0"),
    (lambda queue: queue.throughput(buckets=0), "buckets: 0 must be above 0"),
    (lambda queue: queue.throughput(span_s=0), "span_s: 0 must be above 0"),
    (lambda queue: queue.events("abc"), "after: 'abc' must be an event id"),
    (lambda queue: next(queue.watch(after="abc")), "after: 'abc' must be an event id"),
    (lambda queue: queue.search(Filter(state="foo")), "state: 'foo' is not one of waiting, queued"),  # type: ignore[arg-type]
    (
        lambda queue: queue.set_batch_limits("b", max_in_flight=0),
        "max_in_flight: 0 must be a whole number of at least 1",
    ),
    (lambda queue: queue.set_batch_limits("b", max_credits=-1), "max_credits: -1 must be a whole number of at least 0"),
    (lambda queue: queue.set_batch_limits("b", max_credits=0.5), "max_credits: 0.5 must be a whole number"),
    (
        lambda queue: queue.set_batch_limits("b", stop_after=20),
        "stop_after: 20 must be above 0 and at most 1 (0.2 is 20 %), or math.inf for no limit",
    ),
    (lambda queue: queue.set_batch_limits("b", stop_after=0), "stop_after: 0 must be above 0"),
    (lambda queue: queue.set_batch_limits("b", stop_after=math.nan), "stop_after: nan must be above 0"),
    (
        lambda queue: queue.set_batch_limits("b", stop_min=0),
        "stop_min: 0 must be a whole number of at least 1, or math.inf for the default, 20",
    ),
    (lambda queue: queue.pause(stage="voice", batch="b"), "give a stage or a batch, not both"),
    (lambda queue: queue.resume(stage="voice", batch="b"), "give a stage or a batch, not both"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_value_out_of_range_is_rejected_with_what_is_allowed(
    queue: VoiceQueue, call: Callable[[VoiceQueue], Any], message: str
) -> None:
    """Before anything is read or written."""
    with pytest.raises(ValueError, match="^.*" + message.replace("(", r"\(").replace(")", r"\)")):
        call(queue)


def test_limits_of_a_batch_are_removed_with_infinity(queue: VoiceQueue) -> None:
    """The values at the edge are valid."""
    assert queue.set_batch_limits("b", max_credits=0, max_in_flight=1, stop_after=1, stop_min=1)
    assert queue.set_batch_limits(
        "b", max_credits=math.inf, max_in_flight=math.inf, stop_after=math.inf, stop_min=math.inf
    )


def test_a_dry_run_of_cancelling_one_job_cancels_nothing(command: Command, queue: VoiceQueue) -> None:
    """It shows the job, and fails for one that is settled."""
    job = queue.enqueue(voice())

    shown = command("cancel", job.id, "--dry-run")

    assert (shown.code, "nothing was changed" in shown.err, job.id in shown.out) == (0, True, True)
    assert queue.get(job.id).state is State.QUEUED
    queue.cancel(job.id)
    assert command("cancel", job.id, "--dry-run").code == 1
