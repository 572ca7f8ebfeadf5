"""Arbitrary bytes in the queue `intake` become messages that kombu and Celery can handle."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils.json import dumps, loads

from tasks.enqueue import ENQUEUE_TASK, HiddenArguments, job_argument
from tests.security.envelopes import CORPUS, GOOD, HALF, INTAKE, LADEN, every_place, message, old, with_property
from voicequeue import InvalidJobError, KeyConflictError, Song, VoiceJob
from voicequeue.domain.spec import parse_spec
from voicequeue.errors import FIELDS, REDACTED_MAX
from workers.messaging.consumer import ETA_MAX_S, argument_error
from workers.messaging.message_decoding import KEPT_HEADERS, decode_message
from workers.messaging.message_validation import UNREADABLE, validation_error

NOW = 1_800_000_000.0

TEXT = st.text(st.characters(exclude_categories=()), max_size=9)

#: All values that Python's JSON reader can produce, also half characters, NaN and numbers with thousands of digits.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(10**4_200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("__type__"), inner, max_size=3),
    max_leaves=9,
)
PARTS = st.sampled_from(["body", "headers", "properties", "content-type"])

#: A kombu channel without Redis.
CHANNEL: Any = Connection("memory://").channel()
APP = Celery("test", set_as_current=False)


class Task:
    """Attributes that a request reads from its task."""

    ignore_result = True


def verdict(raw: bytes) -> str:
    """Process a message as kombu and a worker do until the task runs; return the reason for its rejection, or ""."""
    envelope = decode_message(raw, INTAKE)
    received = CHANNEL.Message(loads(dumps([envelope, "", INTAKE]))[0], channel=CHANNEL)  # held, and put back
    assert received.errors == []
    payload = received.payload if received.content_type == "application/json" else None
    reason = validation_error(
        received.headers, received.content_type, payload, task_names=(ENQUEUE_TASK,), now=NOW, eta_max_s=ETA_MAX_S
    )
    reason = reason or str(argument_error(ENQUEUE_TASK, payload) or "")
    if not reason:
        HiddenArguments(received, app=APP, task=Task, headers=received.headers, body=received.body)
    return reason


def check(raw: bytes) -> None:
    """Check the properties that kombu and Celery rely on."""
    envelope = decode_message(raw, INTAKE)
    repeated = decode_message(dumps(envelope).encode(), INTAKE)
    tags = {decoded["properties"].pop("delivery_tag") for decoded in (envelope, repeated)}
    assert len(tags) == 2
    assert repeated == envelope
    assert set(envelope["headers"]) <= {*KEPT_HEADERS, "eta", "expires", UNREADABLE}
    assert all(isinstance(decoded, str) for decoded in envelope["headers"].values())
    assert set(envelope["properties"]) <= {"delivery_info", "priority"}
    assert envelope["properties"]["delivery_info"] == {"exchange": "", "routing_key": INTAKE}
    verdict(raw)


@given(st.binary())
def test_any_bytes_become_a_message(raw: bytes) -> None:
    """It is marked as unreadable."""
    check(raw)
    assert verdict(raw) != ""


@given(PARTS, JSON, st.integers(0, 400), st.binary(max_size=2))
def test_any_envelope_becomes_a_message(part: str, value: Any, place: int, wrong: bytes) -> None:
    """With any value in one part, and any bytes inserted."""
    raw = json.dumps({**message(), part: value}).encode()

    check(raw)
    check(raw[:place] + wrong + raw[place:])


@pytest.mark.parametrize("case", CORPUS)
def test_messages_that_once_ended_a_worker_are_handled(case: str) -> None:
    """The messages in tests/security/envelopes.py."""
    check(CORPUS[case])


def test_a_message_with_any_value_in_any_part_is_handled() -> None:
    """Headers, properties, the bodies of both protocols, options, arguments and the job."""
    messages = every_place()
    for raw in messages:
        check(raw)

    assert len(messages) > 1_500


def test_no_message_makes_celery_act_for_its_sender() -> None:
    """No other tasks, time limits, replies, display names or requeueing."""
    laden = decode_message(json.dumps(LADEN).encode(), INTAKE)

    assert laden["headers"] == {"task": ENQUEUE_TASK, "id": LADEN["headers"]["id"]}
    assert laden["body"] == json.dumps([[], {"job": GOOD}, {}])
    assert verdict(json.dumps(LADEN).encode()) == ""
    embedded = old(callbacks=[{"task": "voice.submit"}], timelimit=[1, 1], retries=9)
    assert json.loads(decode_message(json.dumps(embedded).encode(), INTAKE)["body"]) == [[], {"job": GOOD}, {}]


@pytest.mark.parametrize(
    "task", ["voice.submit", "music.poll", "callback.deliver", "celery.chord", "celery.backend_cleanup"]
)
def test_no_message_reaches_another_task(task: str) -> None:
    """A worker has many tasks; other programs may send one."""
    assert verdict(json.dumps(message(headers={"task": task})).encode()).startswith(f"there is no task '{task}'")


@pytest.mark.parametrize("tag", [HALF, "", "x", 7, None])
def test_the_senders_delivery_tag_is_not_used(tag: Any) -> None:
    """A sender may use a tag twice, and kombu would lose one of the messages."""
    raw = json.dumps(with_property("delivery_tag", tag)).encode()
    tags = {decode_message(raw, INTAKE)["properties"]["delivery_tag"] for _ in range(2)}

    assert len(tags) == 2
    assert tag not in tags
    assert verdict(raw) == ""


SECRET = "SECRET LYRIC of the customer https://signed.example/?sig=abc"

#: Names that the sender chose, in every part of a message that can have names.
NAMED: dict[str, Any] = {
    "of the job": {"job": {**GOOD, SECRET: 1}},
    "of the song": {"job": {**GOOD, "song": {"prompt": "la", f"title.{SECRET}": 1}}},
    "of metadata": {"job": {**GOOD, "metadata": {SECRET: 1}}},
    "with half a character": {"job": {**GOOD, "metadata": {f"{SECRET}{HALF}": "x"}}},
    "of an argument": {SECRET: {}},
    "of many arguments": {f"{SECRET} {number}": {} for number in range(130_000)},
    "very long": {"job": {**GOOD, SECRET * 30_000: 1}},
}


@pytest.mark.parametrize("kwargs", NAMED.values(), ids=list(NAMED))
def test_no_name_from_a_sender_appears_in_the_log_of_its_message(kwargs: dict[str, Any]) -> None:
    """Neither in the error's text for logs nor in its `repr`, which Celery puts into events. Both, and the full text,
    are bounded in length."""
    with pytest.raises(InvalidJobError) as raised:
        parse_spec(job_argument([], kwargs))

    shown = raised.value.redacted() + repr(raised.value)
    assert "SECRET" not in shown
    assert "signed" not in shown
    assert "an unknown field" in shown
    assert len(shown) < 2 * (REDACTED_MAX + 50)
    assert "SECRET" in str(raised.value)
    assert len(str(raised.value)) < 10_000


def test_the_log_names_known_fields() -> None:
    """An operator sees the sender's mistake; keys and other values are hidden."""
    with pytest.raises(InvalidJobError) as raised:
        parse_spec({"audio_url": "ftp://x", "songs": [{"prompt": "la", "title": SECRET * 9}], SECRET: 1})

    text = raised.value.redacted()
    assert "audio_url: must be" in text
    assert "songs.0.title: " in text
    assert "an unknown field: is not known here" in text
    assert SECRET not in repr(KeyConflictError(SECRET, "k5v2yj3q7m6xw4ra"))


def test_the_known_field_names_are_those_of_a_job_and_its_song() -> None:
    """Only these are shown; a new field must be listed here."""
    assert {"job", "id", *VoiceJob.model_fields, *Song.model_fields} == FIELDS
