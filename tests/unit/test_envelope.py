"""What a message from another program must look like, and what is said of one that does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance.messages import INTAKE, NAME, envelope
from workers.envelope import UNREADABLE, fault, name_and_id, sound, unreadable

NOW = 1_800_000_000.0

#: Anything that JSON can say.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def said(headers: dict[str, Any], payload: Any, content_type: Any = "application/json") -> str:
    """What is wrong with a message, where `voicequeue.enqueue` is the only task."""
    return fault(headers, content_type, payload, known={NAME}, now=NOW)


def test_a_sound_envelope_stays_as_it_is() -> None:
    """Nothing is taken from it or added."""
    message = envelope()

    assert sound(message, INTAKE) == message


def test_what_an_envelope_may_leave_out_is_filled_in() -> None:
    """Its delivery tag and where it lies; each tag is another."""
    bare = {"body": "[]"}
    first, second = (sound(bare, INTAKE)["properties"] for _ in range(2))

    assert first["delivery_info"] == {"exchange": "", "routing_key": INTAKE}
    assert first["delivery_tag"] != second["delivery_tag"]


@given(JSON, JSON)
def test_any_envelope_becomes_one_that_can_be_opened(raw: Any, part: Any) -> None:
    """kombu looks for a body, a tag and where the message lies, and asks for no more."""
    parts = ["body", "headers", "properties", "content-type"]
    for message in (raw, *({**envelope(), name: part} for name in parts)):
        found = sound(message, INTAKE)
        assert isinstance(found["body"], str)
        assert isinstance(found["headers"], dict)
        assert isinstance(found["properties"]["delivery_tag"], str)
        assert {"exchange", "routing_key"} <= set(found["properties"]["delivery_info"])


def test_an_envelope_that_cannot_be_opened_is_kept_whole() -> None:
    """As the text of one that says why."""
    found = sound([1, "two"], INTAKE)

    assert json.loads(found["body"]) == [1, "two"]
    assert said(found["headers"], None, found["content-type"]) == "the envelope is no JSON object"
    assert unreadable("x", "why", INTAKE)["headers"] == {UNREADABLE: "why"}


@given(JSON, JSON, JSON, JSON)
def test_no_message_surprises(task: Any, message_id: Any, times: Any, payload: Any) -> None:
    """Whatever a sender writes, there is an answer."""
    headers = {"task": task, "id": message_id, "eta": times, "expires": times}

    assert isinstance(said(headers, payload), str)
    assert isinstance(said({"task": NAME, "id": "x", "eta": times}, payload), str)
    assert said({"task": task}, payload) != ""


@pytest.mark.parametrize(
    "payload",
    [[[], {"job": {}}, {}], [[{}], {}, None], {"task": NAME, "id": "x", "args": [{}]}, {"kwargs": {"job": {}}}],
)
def test_protocol_2_and_1_are_taken(payload: Any) -> None:
    """With the task in the headers or, in protocol 1, in the body."""
    headers = {} if isinstance(payload, dict) and "task" in payload else {"task": NAME, "id": "x"}

    assert said(headers, payload) == ""
    assert name_and_id(headers, payload) == (NAME, "x")


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("2027-01-15T08:00:00+00:00", "it expired before a worker took it"),
        ("2027-01-15T07:59:59", "it expired before a worker took it"),
        ("2027-01-15T09:00:01+01:00", ""),
        ("2027-01-15T08:00:01", ""),
        (1_900_000_000, "expires must be a time such as 2030-01-31T12:00:00+00:00"),
        ("9999-12-31T00:00:00", "expires must be a time such as 2030-01-31T12:00:00+00:00"),
    ],
)
def test_a_message_that_expired_is_not_taken(expires: object, expected: str) -> None:
    """A time without a zone is UTC, as Celery has it."""
    assert said({"task": NAME, "id": "x", "expires": expires}, [[], {"job": {}}, {}]) == expected


def test_no_reason_quotes_the_job() -> None:
    """Reasons are logged."""
    job = {"audio_url": "https://recordings.example/secret.wav"}

    assert "secret" not in said({"task": NAME, "id": "x"}, [job, job, job])
    assert "secret" not in said({"task": NAME, "id": "x"}, {"args": job, "kwargs": [job]})
