"""Test an app that enqueues jobs, without Redis, workers, MusicAPI or network.

>>> from voicequeue.testing import FakeQueue, fails, succeeds
>>> queue = FakeQueue()
>>> queue.script(fails("moderated"), key="rude")
>>> queue.wait(queue.enqueue(job).id).failure.code

The queue is the real client over a Redis in this process, which runs the same Lua scripts. Only the workers and
MusicAPI are replaced: scripted outcomes say how each job ends. pytest finds the fixtures of `voicequeue.testing.plugin`
by itself. Needs the extra `voicequeue[dev]`.
"""

from __future__ import annotations

from voicequeue.testing.callbacks import SentCallback
from voicequeue.testing.outcomes import Outcome, fails, moderated, stays_pending, succeeds, unsure
from voicequeue.testing.queue import AsyncFakeQueue, FakeQueue

__all__ = [
    "AsyncFakeQueue",
    "FakeQueue",
    "Outcome",
    "SentCallback",
    "fails",
    "moderated",
    "stays_pending",
    "succeeds",
    "unsure",
]
