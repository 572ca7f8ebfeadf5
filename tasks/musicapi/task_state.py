"""State of a task, from the state words and texts of a poll's response body. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tasks.musicapi import errors
from tasks.musicapi.response_body import (
    JsonObject,
    UnwrappedBody,
    least_advanced,
    message_in,
    status_code_in,
)
from tasks.musicapi.results import NotReady, TaskFailed
from voicequeue.domain.clip import Phase, normalize, phase_of

#: A text that says the task is in progress.
_IN_PROGRESS = re.compile(
    r"\bnot (yet )?(ready|finished|complete)|\b(still )?in progress\b|\bstill \w+ing\b|\bbeing \w+ed\b"
)
#: An error of the request, not of the task.
_BUSY = re.compile(r"\bbusy\b|\btry again\b")
#: An error of upstream, the account or the request: it says nothing about the task.
_UNRELATED_ERROR = re.compile(
    r"\b(internal|server|gateway|unavailable|maintenance|database|network|connect\w*|query|unknown task|task[ _]?id|"
    r"bad request|forbidden|permissions?|account|keys?|tokens?|(un)?authori\w+|authenticat\w+|subscription|credits?)\b"
    r"|^\W*(request )?time[d -]*out\b"
)
#: Upstream does not find something: the task, unless the text is about the recording.
_NOT_FOUND = re.compile(r"\b(not found|fetch|retrieve)\b")
_ABOUT_TASK = re.compile(r"\b(tasks?|jobs?|orders?|results?|status)\b")
_ABOUT_RECORDING = re.compile(r"\b(audio|recordings?|files?|vocals?|speakers?)\b")
#: An error without a specific cause.
_VAGUE = re.compile(
    r"\b(busy|try again|went wrong|error occurred|(system|unknown) error|unexpected|exception)\b|^\W*error\W*$"
)
#: Status codes whose text is about the task unless it is vague.
_TASK_ERROR_CODES = (400, 422, 500)
#: A text that says the task failed.
_FAILED = re.compile(
    r"\b(fail(ed|ure|s)?|could not|couldn't|cannot|unable|unsuccessful|rejected|refused|cancel+ed|timed out|expired|"
    r"aborted|moderat\w+|copyright\w*|inappropriate|violat\w+|unsupported|corrupt\w*)\b"
)


def task_state(unwrapped: UnwrappedBody, objects: Sequence[JsonObject], body: Any) -> NotReady | TaskFailed | None:
    """Return the state of the task that `objects` report; None if they report neither progress nor failure.

    Of several state words the least advanced counts.
    """
    word = least_advanced(item.fields.state_word for item in objects)
    phase = phase_of(word)
    if phase is Phase.FAILED and normalize(word) != "error":
        return TaskFailed(failure_reason(unwrapped, word))
    text = _text(unwrapped, body)
    is_busy = phase is Phase.FAILED and (status_code_in(body) or 0) < 400 and _BUSY.search(text)
    if phase is Phase.WORKING or is_busy or _IN_PROGRESS.search(text):
        return NotReady()
    return TaskFailed(failure_reason(unwrapped, word)) if _has_failed(objects, word, text) else None


def failure_reason(unwrapped: UnwrappedBody, word: str) -> str:
    """Return upstream's text for a failure, or its state word where there is no text."""
    is_generic = normalize(word) in ("failed", "error") or phase_of(word) is not Phase.FAILED
    return _innermost_text(unwrapped) or ("upstream gives no reason" if is_generic else f"upstream says: {word}")


def _text(unwrapped: UnwrappedBody, body: Any) -> str:
    """Return the message of a body in lower case: the outermost one that is not just "success"."""
    message = message_in(body)
    if message and phase_of(message) is not Phase.DONE:
        return message.lower()
    return (_innermost_text(unwrapped) or message or "").lower()


def _innermost_text(unwrapped: UnwrappedBody) -> str | None:
    """Return the innermost message of a body that is not just "success"."""
    texts = (item.fields.message for item in unwrapped.innermost_first)
    return next((text for text in texts if text and phase_of(text) is not Phase.DONE), None)


def _has_failed(objects: Sequence[JsonObject], word: str, text: str) -> bool:
    """Return whether an error response reports the failure of the task, not of upstream or the account."""
    codes = (errors.error_status_in(item.fields) for item in objects)
    code = next((code for code in codes if code is not None), None)
    is_failed_word = phase_of(word) is Phase.FAILED
    is_explicit = is_failed_word or any(item.fields.is_unsuccessful for item in objects)
    if not is_explicit and code is None:
        return False
    if not text:
        return is_failed_word
    error = errors.error_from_response(400, {"message": text}, {}, 0.0)
    if isinstance(error, errors.Moderated):
        return True
    is_about_task = is_explicit or _FAILED.search(text) or (code in _TASK_ERROR_CODES and not _VAGUE.search(text))
    return bool(is_about_task) and isinstance(error, errors.InvalidRequest) and not _is_unrelated(text)


def _is_unrelated(text: str) -> bool:
    """Return whether a text is about something other than the result of the task."""
    is_recording = _ABOUT_RECORDING.search(text) and not _ABOUT_TASK.search(text)
    return bool(_UNRELATED_ERROR.search(text) or (_NOT_FOUND.search(text) and not is_recording))
