"""The format of log lines, and what they never contain."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from config.logs import FIELDS, HIDDEN, TEXT_MAX, TRACEBACK_MAX, formatter
from config.settings import Settings

SETTINGS = {
    "MUSICAPI_KEY": "the-key-of-the-account",
    "REDIS_URL": "redis://me:pass%40word-1@redis.internal:6379/0",
    "secret": "the secret of the queue which is long,the old secret of the queue while it is rotated",
    "archive_url": "s3://key:archive-password@bucket/songs",
}

Write = Callable[..., dict[str, Any]]


@pytest.fixture
def write() -> Write:
    """Return a function that formats a record as JSON and returns the decoded line."""
    to_json = formatter(Settings(_env_file=None, **SETTINGS), in_json=True)  # type: ignore[arg-type]

    def written(
        text: str, *arguments: object, level: int = logging.INFO, error: Any = None, **extra: Any
    ) -> dict[str, Any]:
        record = logging.getLogger("voicequeue").makeRecord(
            "voicequeue", level, __file__, 1, text, arguments, error, extra=extra
        )
        line: dict[str, Any] = json.loads(to_json.format(record))
        return line

    return written


def test_a_line_has_event_level_time_process_and_the_job(write: Write) -> None:
    """Each has its own field; the time is in UTC."""
    line = write("submitted", job="j1", stage="voice", duration=0.5, at=1_760_000_000.25)

    assert (line["event"], line["level"], line["job"], line["stage"], line["duration"]) == (
        "submitted", "info", "j1", "voice", 0.5
    )  # fmt: skip
    assert line["timestamp"] == "2025-10-09T08:53:20.250000Z"
    assert line["pid"] > 0


@pytest.mark.parametrize(
    "secret",
    [
        "the-key-of-the-account",
        "the secret of the queue which is long",
        "the old secret of the queue while it is rotated",
        "pass%40word-1",
        "pass@word-1",
        "archive-password",
    ],
)
def test_secrets_of_the_settings_are_hidden_in_every_field(write: Write, secret: str) -> None:
    """The text, the fields and the traceback are redacted."""
    assert write("it said %s, twice: %s", secret, secret)["event"] == f"it said {HIDDEN}, twice: {HIDDEN}"
    assert write("x", reason=f"({secret})")["reason"] == f"({HIDDEN})"
    try:
        raise ValueError(secret)
    except ValueError:
        line = write("a defect", level=logging.ERROR, error=sys.exc_info())
    assert "ValueError" in line["exception"]
    assert secret not in str(line)


def test_fields_that_libraries_attach_are_not_logged(write: Write) -> None:
    """Celery attaches the arguments of tasks."""
    line = write("Task failed", data={"args": "https://recordings.example/1.wav"}, audio_url="https://a.example/x")

    assert "example" not in str(line)
    assert not {"data", "audio_url"} & set(FIELDS)


def test_a_terminal_gets_text() -> None:
    """Lines are readable, not JSON."""
    to_text = formatter(Settings(_env_file=None), in_json=False)
    record = logging.makeLogRecord(
        {"msg": "submitted", "levelname": "INFO", "levelno": 20, "name": "voicequeue", "job": "j1"}
    )

    line = to_text.format(record)

    assert "submitted" in line
    assert "j1" in line
    assert not line.startswith("{")


def test_long_texts_are_truncated(write: Write) -> None:
    """A traceback may be longer than other texts."""
    try:
        raise ValueError("x" * 1_000_000)
    except ValueError:
        line = write("said: %s", "y" * 1_000_000, reason="z" * 1_000_000, error=sys.exc_info())

    assert {name: len(line[name]) for name in ("event", "reason")} == dict.fromkeys(("event", "reason"), TEXT_MAX + 1)
    assert len(line["exception"]) == TRACEBACK_MAX + 1
