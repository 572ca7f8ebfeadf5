"""A worker exits together with its background thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from config.settings import SettingsError
from voicequeue.domain.store_format import StoreFormat
from voicequeue.storage.format import FormatStamp
from voicequeue.storage.job_store import JobStore
from workers.background import BackgroundStep, run_safely


class FailingStep(BackgroundStep):
    """A step that raises: while its loop is built, or in the loop."""

    def __init__(self, *, in_loop: bool) -> None:
        super().__init__(SimpleNamespace())
        self._in_loop = in_loop

    def prepare(self, app: Any, worker: str, processes: int) -> Callable[[], None]:  # noqa: ARG002  it fails
        """Return a loop that fails, or fail."""
        if not self._in_loop:
            raise SettingsError("REDIS_URL: is wrong")
        return self._fail

    def _fail(self) -> None:
        raise RuntimeError("a defect")


@pytest.mark.parametrize(("in_loop", "error"), [(False, "SettingsError: REDIS_URL: is wrong"), (True, "RuntimeError")])
def test_a_worker_exits_with_its_background_thread_and_logs_the_error(
    in_loop: bool, error: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would consume messages without sending heartbeats."""
    monkeypatch.setattr(state, "should_stop", None)
    step, worker = FailingStep(in_loop=in_loop), SimpleNamespace(app=None, hostname="w1", concurrency=1)

    with nullcontext() if in_loop else pytest.raises(SystemExit, match="1"):
        step.start(worker)

    step.stop(worker)
    assert state.should_stop == (1 if in_loop else None)
    [record] = caplog.records
    assert record.getMessage().endswith(f"so the worker exits: {error}")


def test_a_worker_exits_after_its_queue_was_upgraded_beyond_it(
    store: JobStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next step ends it with the sentence that says what to do; other errors are tried again."""
    monkeypatch.setattr(state, "should_stop", None)
    stamp = FormatStamp(store._space)

    def step() -> None:
        store.admit(0.0)

    def loop() -> None:
        for attempt in count():
            run_safely(step)
            stamp.raise_to(StoreFormat(2, 2))
            assert attempt < 1

    BackgroundStep(SimpleNamespace())._run(loop)

    assert state.should_stop == 1
    [record] = caplog.records
    assert record.getMessage().startswith("the worker exits: this release is too old for the queue")
