"""The errors of the package: one tree, with messages that are safe to log."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from voicequeue import (
    ApiKeyNotFoundError,
    BatchNotFoundError,
    BudgetExceededError,
    ErasedError,
    InvalidAudioError,
    InvalidCursorError,
    InvalidJobError,
    InvalidStateError,
    JobNotFoundError,
    KeyConflictError,
    NotOperatorError,
    PlanNotFoundError,
    Problem,
    StoreFormatError,
    StoreUnavailableError,
    VoiceQueue,
    VoiceQueueError,
    WaitTimeoutError,
    errors,
)
from voicequeue.cli.ingest.intake import read_items
from voicequeue.domain.spec import parse_spec
from voicequeue.ingest.row_reader import RowReader

ERRORS = [
    PlanNotFoundError(),
    InvalidCursorError(),
    InvalidJobError([Problem("song.title", "is too long"), Problem("", "is odd")]),
    InvalidAudioError("too_short", "5.0 s long; more than 10 s are required"),
    KeyConflictError("order-7", "abcdefgh"),
    BudgetExceededError("namespace/shop", "day", 19, limit=500, remaining=12, resets_at=1_760_054_400),
    ErasedError(),
    JobNotFoundError("abcdefgh"),
    BatchNotFoundError("spring"),
    ApiKeyNotFoundError("shop"),
    InvalidStateError("no"),
    WaitTimeoutError("job abcdefgh has not settled yet"),
    NotOperatorError("audit"),
    StoreFormatError("this release is too old"),
    StoreUnavailableError("Redis does not answer"),
]


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InvalidJobError, ValueError),
        (KeyConflictError, ValueError),
        (ErasedError, ValueError),
        (JobNotFoundError, LookupError),
        (BatchNotFoundError, LookupError),
        (ApiKeyNotFoundError, LookupError),
        (WaitTimeoutError, TimeoutError),
    ],
)
def test_an_error_is_also_a_builtin_error(kind: type[Exception], builtin: type[Exception]) -> None:
    """Generic code can catch ValueError and LookupError."""
    assert issubclass(kind, builtin)


def test_one_class_catches_them_all() -> None:
    """VoiceQueueError is the base of every error."""
    assert all(isinstance(error, VoiceQueueError) for error in ERRORS)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every error is in it, and nothing else."""
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))

    assert drawn == {type(error).__name__ for error in ERRORS}
    kinds = [*VoiceQueueError.__subclasses__(), *StoreUnavailableError.__subclasses__()]
    assert drawn == {kind.__name__ for kind in kinds if kind.__module__ == errors.__name__}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying(error: VoiceQueueError) -> None:
    """With the same message and attributes: process pools and Celery pickle errors."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_an_invalid_job_names_every_field_that_is_wrong() -> None:
    """By its dotted path; a problem of the whole job has none."""
    error = InvalidJobError([Problem("song.title", "is too long"), Problem("", "is odd")])

    assert str(error) == "song.title: is too long; is odd"
    assert error.problems == (Problem("song.title", "is too long"), Problem("", "is odd"))


def test_a_key_conflict_names_the_key_and_the_job_that_has_it() -> None:
    """The caller can read that job, or choose another key."""
    error = KeyConflictError("order-7", "abcdefgh")

    assert "'order-7'" in str(error)
    assert error.key == "order-7"
    assert error.job_id in str(error)


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "fields",
    [
        {"audio_url": f"ftp://{SECRET}"},
        {"audio_url": f"https://x.example/{SECRET}/" + "x" * 2_100},
        {"callback_url": f"{SECRET}://x"},
        {"song": {"prompt": SECRET * 1_000}},
        {"song": {"prompt": "la", "title": SECRET * 20}},
        {"song": {"prompt": "la", "style_weight": SECRET}},
        {"song": {"prompt": "la", "vocal_gender": SECRET}},
        {"song": {"prompt": "la", "mv": SECRET}},
        {"song": SECRET},
        {"name": SECRET * 50},
        {"priority": SECRET},
        {"max_credits": SECRET},
        {"metadata": {"token": [SECRET]}},
        {"metadata": SECRET},
        {"persona_id": SECRET},
    ],
)
def test_the_message_of_an_error_contains_no_value(fields: dict[str, Any]) -> None:
    """A URL may contain a token, and lyrics are private."""
    with pytest.raises(InvalidJobError) as caught:
        parse_spec({"audio_url": "https://x.example/a.wav", **fields})

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def kept_errors() -> Iterator[BaseException | None]:
    """Yield the error that each entry point keeps for an invalid job."""
    wrong = {"audio_url": "x", "unknown": 1}
    with VoiceQueue("redis://127.0.0.1:1") as queue:  # it is not asked: there is nothing to enqueue
        yield queue.enqueue_many([wrong]).rejections[0].error
        yield next(queue.preview([wrong])).error
    yield next(read_items(RowReader(io.BytesIO(b"audio_url\nx\n")), "spring", None)).error


def test_a_kept_error_does_not_keep_the_input_in_memory() -> None:
    """It has no traceback, context or cause: those refer to the parsed job."""
    for error in kept_errors():
        assert isinstance(error, InvalidJobError)
        assert error.problems
        assert (error.__traceback__, error.__context__, error.__cause__) == (None, None, None)
