"""Fixtures of the tests of callbacks: a worker, and receivers that it may reach."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.outbound.callback_worker import CallbackWorker, Listen, callback_worker, receivers
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def worker(store: JobStore) -> Iterator[CallbackWorker]:
    """Return a worker that may send to this machine."""
    with callback_worker(store) as worker:
        yield worker


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Return a function that starts receivers."""
    with receivers() as listen:
        yield listen
