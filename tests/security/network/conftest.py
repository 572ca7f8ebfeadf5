"""Count lines in the gateway's log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from workers.gateway import notices


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """Return a function that counts log lines with these words; rate limits of earlier tests are reset."""
    caplog.set_level(logging.INFO, notices.log.name)
    for rate_limit in notices.log.filters:
        monkeypatch.setattr(rate_limit, "_last", {})
    return lambda words: len([line for line in caplog.messages if words in line])
