"""Logging of every process: one line per event, JSON unless on a terminal, never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import Processor

from config.settings import Settings
from voicequeue.storage.connection.redis_url import passwords_in
from voicequeue.texts import escape_controls, terminal_safe_json

HIDDEN = "(hidden)"

#: Shorter secrets are not redacted: they are test values, which may be part of any word.
SECRET_MIN = 8

#: The maximum number of characters of a text field, and of a traceback.
TEXT_MAX = 2_000
TRACEBACK_MAX = 50_000

#: Fields whose values are never shown.
_PRIVATE = re.compile(r"url|lyric|prompt|password|secret|authorization|api_?key", re.IGNORECASE)

#: Loggers whose routine messages are hidden unless the level is DEBUG; our own events report the progress of jobs.
VERBOSE_LOGGERS = ("celery.worker.strategy", "celery.app.trace", "kombu", "amqp", "urllib3", "botocore", "asyncio")

#: Loggers of libraries that install handlers of their own.
LIBRARY_LOGGERS = ("uvicorn", "uvicorn.error", "celery", "celery.task", "celery.redirected")

#: The extra fields that are logged. Fields that libraries attach (Celery: arguments of tasks) are not.
FIELDS = (
    *("job", "batch", "stage", "attempt", "outcome", "reason", "duration", "task_id", "at"),
    *("callback_id", "event_type", "attempts", "action", "source", "message_id", "count"),
    *("method", "path", "status", "key_name"),
)

LogEvent = MutableMapping[str, Any]


def configure(configured: Settings) -> None:
    """Configure this process to log to standard error as the settings say."""
    handler = logging.StreamHandler()
    in_json = configured.log_format == "json" or (configured.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(formatter(configured, in_json=in_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(configured.log_level)
    for name in LIBRARY_LOGGERS:
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True  # it logs query strings, unlike the gateway
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if configured.log_level == "DEBUG" else logging.WARNING)
    logging.captureWarnings(capture=True)


def formatter(configured: Settings, *, in_json: bool) -> ProcessorFormatter:
    """Return the formatter that turns a record into a line."""
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        ExtraAdder(allow=FIELDS),
        _add_time_and_process,
        _add_trace,
    ]
    colored = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    rendered: list[Processor] = (
        [structlog.processors.JSONRenderer(terminal_safe_json)] if in_json else [_escape, colored]
    )
    last: list[Processor] = [
        ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        Redactor(configured),
        _truncate,
        *rendered,
    ]
    return ProcessorFormatter(foreign_pre_chain=common, processors=last)


def _truncate(_: Any, __: str, line: LogEvent) -> LogEvent:
    """Truncate long texts, the last safeguard against logging what a caller sent."""
    for name, value in line.items():
        max_length = TRACEBACK_MAX if name == "exception" else TEXT_MAX
        if isinstance(value, str) and len(value) > max_length:
            line[name] = f"{value[:max_length]}…"
    return line


def _escape(_: Any, __: str, line: LogEvent) -> LogEvent:
    """Escape control characters and line breaks; the lines of a traceback are indented."""
    for name, value in line.items():
        if name == "exception":
            line[name] = escape_controls(str(value), keep="\n").replace("\n", "\n  ")
        elif isinstance(value, str):
            line[name] = escape_controls(value)
    return line


def _add_time_and_process(_: Any, __: str, line: LogEvent) -> LogEvent:
    """Add the process id and the time of the event; for transitions, the time at which they were made."""
    record: logging.LogRecord = line["_record"]
    at = datetime.fromtimestamp(line.pop("at", record.created), UTC)
    line["timestamp"] = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    line["pid"] = record.process
    line.pop("color_message", None)  # uvicorn's, for terminals
    return line


def _add_trace(_: Any, __: str, line: LogEvent) -> LogEvent:
    """Add the ids of the current trace, if tracing is enabled."""
    if (trace := sys.modules.get("opentelemetry.trace")) is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"], line["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    return line


class Redactor:
    """Hides the values of secret settings in every field, and fields that are never shown; the last safeguard."""

    def __init__(self, configured: Settings) -> None:
        secrets = sorted(set(_secrets(configured)), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def __call__(self, _: Any, __: str, line: LogEvent) -> LogEvent:
        """Redact one line; the signature of structlog's processors."""
        for name, value in line.items():
            if _PRIVATE.search(name):
                line[name] = HIDDEN
            elif self._secrets is not None and isinstance(value, str):
                line[name] = self._secrets.sub(HIDDEN, value)
        return line


def _secrets(configured: Settings) -> Iterator[str]:
    secrets = (configured.musicapi_key, configured.archive_url)
    texts = [secret.get_secret_value() for secret in secrets] + configured.callback_secret.get_secret_value().split()
    texts += configured.secrets
    texts += passwords_in(configured.redis_url)
    password = urlsplit(configured.archive_url.get_secret_value()).password or ""
    texts += [password, unquote(password)]
    plain_folder = configured.archive_url.get_secret_value()
    return (text for text in texts if len(text) >= SECRET_MIN and (text != plain_folder or "@" in text))
