"""Log lines with text that a terminal would interpret."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from config.logs import formatter
from config.settings import Settings

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\u2066\u200f\u2028\r\n2026-01-01T00:00:00Z [info] paid \ud800"


def _line(*, in_json: bool, error: Any = None) -> str:
    written = formatter(Settings(_env_file=None), in_json=in_json)
    extra = {"job": HOSTILE, "reason": HOSTILE, "path": HOSTILE}
    record = logging.getLogger("voicequeue").makeRecord(
        "voicequeue", logging.INFO, __file__, 1, "said: %s", (HOSTILE,), error, extra=extra
    )
    return written.format(record)


@pytest.mark.parametrize("in_json", [True, False], ids=["json", "text"])
def test_no_log_line_controls_the_terminal_or_starts_another_line(in_json: bool) -> None:
    """For any text of upstream or a caller; JSON preserves it exactly."""
    line = _line(in_json=in_json)

    written = line.replace("\x1b[", "") if sys.stderr.isatty() else line  # our own colours
    assert [letter for letter in written if not letter.isprintable()] == []
    if in_json:
        assert json.loads(line)["reason"] == HOSTILE
    else:
        assert r"\x1b]0;owned\x07\x9b31m\u202e\u2066\u200f\u2028\r\n2026" in line


def test_no_traceback_in_a_log_starts_a_line_at_the_margin() -> None:
    """Its lines are indented, those of the error's text included."""
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        first, *rest = _line(in_json=False, error=sys.exc_info()).splitlines()

    assert "said: " in first
    assert all(line.startswith("  ") or "Traceback" in line for line in rest), rest
    assert not [letter for line in rest for letter in line if not letter.isprintable()]
