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

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voicequeue.testing.callbacks import SentCallback
    from voicequeue.testing.outcomes import Outcome, fails, moderated, stays_pending, succeeds, unsure
    from voicequeue.testing.queue import AsyncFakeQueue, FakeQueue

#: The public names, by module. They are imported when they are used: pytest imports the plugin in every run.
_EXPORTS = {
    "callbacks": ("SentCallback",),
    "outcomes": ("Outcome", "fails", "moderated", "stays_pending", "succeeds", "unsure"),
    "queue": ("AsyncFakeQueue", "FakeQueue"),
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}

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


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
