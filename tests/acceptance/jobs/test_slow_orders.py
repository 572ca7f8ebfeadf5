"""Slow answers to orders: results of other orders are polled on time."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import Build
from tests.conftest import eventually
from voicequeue import State, TimelineEntry, VoiceJob
from workers.local.stack import procfile

#: The number of jobs: twice as many as are ordered at once.
JOBS = 16

#: Bytes of the answer to an order, which the simulator sends one after the other, and seconds until it is complete.
ANSWER_BYTES, ORDER_S = 90, 3.0

#: Seconds within which a result must be recorded: two of the longest intervals between polls, and a second.
RECORDED_S = 2.0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_results_are_polled_on_time_while_every_order_is_answered_late(build: Build, pool: str) -> None:
    """However long answers to orders take, and however many orders wait: a due poll is not delayed by them."""
    system = build(
        workers=0,
        dials={"voice_s": 0.1, "drip_s": ORDER_S / ANSWER_BYTES, "post_faults": {"drip_after": 1}},
        VOICEQUEUE_UPSTREAM_CONCURRENCY="4",
        VOICEQUEUE_TASK_CHUNK_SIZE="4",
        VOICEQUEUE_SUBMIT_LEASE_S="20",
    )
    system.stack.start("worker", f"{procfile()['worker']} --pool {pool}")
    with system.queue() as queue:
        specs = [VoiceJob(audio_url=f"https://recordings.example/{number}.wav", batch="slow") for number in range(JOBS)]
        queue.enqueue_many(specs)
        eventually(lambda: queue.batch("slow").states[State.SUCCEEDED] == JOBS, within_s=60)
        timelines = [queue.timeline(job.id) for job in queue.jobs(batch="slow")]

    assert min(_seconds(entries, State.CHARGING, State.PENDING) for entries in timelines) > RECORDED_S
    assert max(_seconds(entries, State.PENDING, State.SUCCEEDED) for entries in timelines) < RECORDED_S


def _seconds(timeline: list[TimelineEntry], start: State, end: State) -> float:
    """Return the seconds between two transitions of a job."""
    times = {entry.state: entry.at for entry in timeline}
    return times[end] - times[start]
