"""Count the lines of the gateway's log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from workers.gateway import notices


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """How many lines of the log have these words; none is held back for what an earlier test did."""
    caplog.set_level(logging.INFO, notices.log.name)
    for sparing in notices.log.filters:
        monkeypatch.setattr(sparing, "_last", {})
    return lambda words: len([line for line in caplog.messages if words in line])
