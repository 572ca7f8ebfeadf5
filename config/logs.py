"""How every process logs: one line an event, JSON where nobody looks on, and never a secret."""

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
from voicequeue.texts import json_text, shown

HIDDEN = "(hidden)"

#: A shorter secret is a test's: it may be part of any word.
SECRET_MIN = 8

#: No text of a line has more characters, whoever wrote it; a traceback may have more.
TEXT_MAX = 2_000
TRACEBACK_MAX = 50_000

#: Fields that are never shown, whatever they hold.
_PRIVATE = re.compile(r"url|lyric|prompt|password|secret|authorization|api_?key", re.IGNORECASE)

#: They say that Celery does its work; what becomes of jobs is said by us.
CHATTY = ("celery.worker.strategy", "celery.app.trace", "kombu", "amqp", "urllib3", "botocore", "asyncio")

#: Servers that bring handlers of their own.
GUESTS = ("uvicorn", "uvicorn.error", "celery", "celery.task", "celery.redirected")

#: What our lines carry beside their text; what libraries attach to theirs (Celery: arguments of tasks) stays out.
FIELDS = (
    *("job", "batch", "stage", "attempt", "outcome", "reason", "duration", "task_id", "at"),
    *("callback", "type", "tries", "hint", "door", "message_id", "count"),
    *("method", "path", "status", "who"),
)

Line = MutableMapping[str, Any]


def configure(chosen: Settings) -> None:
    """Let this process log to standard error as the settings say."""
    handler = logging.StreamHandler()
    in_json = chosen.log_format == "json" or (chosen.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(formatter(chosen, in_json=in_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(chosen.log_level)
    for name in GUESTS:
        guest = logging.getLogger(name)
        guest.handlers, guest.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True  # logs queries, unlike workers/gateway/server/request_log.py
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if chosen.log_level == "DEBUG" else logging.WARNING)
    logging.captureWarnings(capture=True)


def formatter(chosen: Settings, *, in_json: bool) -> ProcessorFormatter:
    """What turns a record into a line."""
    known: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        ExtraAdder(allow=FIELDS),
        _where_and_when,
        _trace,
    ]
    in_colour = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    rendered: list[Processor] = [structlog.processors.JSONRenderer(json_text)] if in_json else [_on_one_line, in_colour]
    last: list[Processor] = [
        ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        Redactor(chosen),
        _bounded,
        *rendered,
    ]
    return ProcessorFormatter(foreign_pre_chain=known, processors=last)


def _bounded(_: Any, __: str, line: Line) -> Line:
    """Cut what is too long: the last line of defence, as no line is as long as what somebody sent."""
    for name, value in line.items():
        longest = TRACEBACK_MAX if name == "exception" else TEXT_MAX
        if isinstance(value, str) and len(value) > longest:
            line[name] = f"{value[:longest]}…"
    return line


def _on_one_line(_: Any, __: str, line: Line) -> Line:
    """Escape what a terminal would obey, and what would begin another line; those of a traceback are set in."""
    for name, value in line.items():
        if name == "exception":
            line[name] = shown(str(value), keep="\n").replace("\n", "\n  ")
        elif isinstance(value, str):
            line[name] = shown(value)
    return line


def _where_and_when(_: Any, __: str, line: Line) -> Line:
    """The process, and when it happened; of moves that is when they were made, not when they are told."""
    record: logging.LogRecord = line["_record"]
    at = datetime.fromtimestamp(line.pop("at", record.created), UTC)
    line["timestamp"] = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    line["pid"] = record.process
    line.pop("color_message", None)  # uvicorn's, for terminals
    return line


def _trace(_: Any, __: str, line: Line) -> Line:
    """Where traces are on, the one that this belongs to."""
    if (trace := sys.modules.get("opentelemetry.trace")) is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"], line["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    return line


class Redactor:
    """The last line of defence: hides what the settings keep secret wherever it stands, and fields that never show."""

    def __init__(self, chosen: Settings) -> None:
        found = sorted(set(_secrets(chosen)), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, found))) if found else None

    def __call__(self, _: Any, __: str, line: Line) -> Line:
        """As structlog's processors are called."""
        for name, value in line.items():
            if _PRIVATE.search(name):
                line[name] = HIDDEN
            elif self._secrets is not None and isinstance(value, str):
                line[name] = self._secrets.sub(HIDDEN, value)
        return line


def _secrets(chosen: Settings) -> Iterator[str]:
    whole = (chosen.musicapi_key, chosen.secret, chosen.archive)
    texts = [each.get_secret_value() for each in whole] + chosen.callback_secret.get_secret_value().split()
    for url in (chosen.redis_url, chosen.archive.get_secret_value()):
        password = urlsplit(url).password or ""
        texts += [password, unquote(password)]
    plain_folder = chosen.archive.get_secret_value()
    return (text for text in texts if len(text) >= SECRET_MIN and (text != plain_folder or "@" in text))
