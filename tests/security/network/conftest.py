"""Count lines in the gateway's log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from workers.gateway.server import limit_log


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """Return a function that counts log lines with these words; rate limits of earlier tests are reset."""
    caplog.set_level(logging.INFO, limit_log.log.name)
    for rate_limit in limit_log.log.filters:
        monkeypatch.setattr(rate_limit, "_last", {})
    return lambda words: len([line for line in caplog.messages if words in line])
