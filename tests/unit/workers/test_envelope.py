"""The format of messages from other programs, and the reasons for rejecting them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.messages import INTAKE, NAME, envelope
from workers.messaging.held_messages import DELAYED_BYTES_MAX, OVERHEAD, DelayedMessages
from workers.messaging.message_decoding import decode_message, unreadable_envelope
from workers.messaging.message_validation import UNREADABLE, task_name_and_id, validation_error

NOW = 1_800_000_000.0

#: Any JSON value.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def error_of(headers: dict[str, Any], payload: Any, content_type: Any = "application/json") -> str:
    """Return the error in a message when `voicequeue.enqueue` is the only task."""
    return validation_error(headers, content_type, payload, task_names={NAME}, now=NOW, eta_max_s=180)


def decoded(message: Any, queue: str = INTAKE) -> dict[str, Any]:
    """Return the envelope that kombu gets for a message in a queue."""
    return decode_message(json.dumps(message).encode(), queue)


def test_a_valid_message_keeps_its_task_id_times_priority_and_arguments() -> None:
    """Everything else is dropped; protocol 1 becomes protocol 2."""
    times = {"eta": "2027-01-15T09:00:01+01:00", "expires": "2027-01-15T09:00:00"}
    normalized = {"eta": "2027-01-15T08:00:01+00:00", "expires": "2027-01-15T09:00:00+00:00"}
    body = [[{"a": 1}], {}, {"callbacks": ["x"]}]
    second = envelope(body, headers={**times, "lang": "js"}, message_id="x")
    second["properties"]["priority"] = 3
    first = {**envelope({"task": NAME, "id": "x", "args": [{"a": 1}], "retries": 2, **times}), "headers": {}}

    for message, priority in ((second, {"priority": 3}), (first, {})):
        result = decoded(message)
        assert result["headers"] == {"task": NAME, "id": "x", **normalized}
        assert json.loads(result["body"]) == [[{"a": 1}], {}, {}]
        assert result["properties"].pop("delivery_tag") != message["properties"]["delivery_tag"]
        assert result["properties"] == {"delivery_info": {"exchange": "", "routing_key": INTAKE}, **priority}


def test_an_internal_message_also_keeps_the_headers_for_flower_traces_and_retries() -> None:
    """Time limits and unknown headers are dropped."""
    kept = {"argsrepr": "(['a'],)", "root_id": "r", "traceparent": "t", "retries": 2}
    result = decoded(envelope([[["a"]], {}, None], headers={**kept, "timelimit": [1, 1]}, message_id="x"), "poll")

    assert result["headers"] == {"task": NAME, "id": "x", **kept}


def test_a_message_of_remote_control_stays_as_it_is() -> None:
    """Replies and commands are not tasks."""
    reply = envelope(headers={"clock": 7, "expires": 0.5})
    result = decoded(reply, "x.reply.celery.pidbox")

    assert {**result, "properties": 0} == {**reply, "properties": 0}


def test_optional_parts_of_an_envelope_are_filled_in() -> None:
    """It gets its queue and a unique delivery tag."""
    bare = {"body": "[]", "content-type": "application/json"}
    first, second = (decoded(bare)["properties"] for _ in range(2))

    assert first["delivery_info"] == {"exchange": "", "routing_key": INTAKE}
    assert first["delivery_tag"] != second["delivery_tag"]


def test_an_invalid_envelope_is_kept_whole() -> None:
    """It becomes the body of an envelope with the reason, and with the id if it can be read."""
    result = decoded([1, "two"])

    assert json.loads(result["body"]) == [1, "two"]
    assert error_of(result["headers"], None, result["content-type"]) == "the envelope is not a JSON object"
    assert unreadable_envelope("x", "why", INTAKE)["headers"] == {UNREADABLE: "why"}
    named = decoded(envelope(raw_body="e3t7", message_id="x"))
    assert (named["body"], named["headers"]["id"], named["headers"]["task"]) == ("{{{", "x", NAME)


@given(JSON, JSON, JSON, JSON)
def test_every_message_gets_an_answer(task: Any, message_id: Any, times: Any, payload: Any) -> None:
    """No combination of values raises an unexpected error."""
    headers = {"task": task, "id": message_id, "eta": times, "expires": times}

    assert isinstance(error_of(headers, payload), str)
    assert isinstance(error_of({"task": NAME, "id": "x", "eta": times}, payload), str)
    assert error_of({"task": task}, payload) != ""


@pytest.mark.parametrize(
    "payload",
    [[[], {"job": {}}, {}], [[{}], {}, None], {"task": NAME, "id": "x", "args": [{}]}, {"kwargs": {"job": {}}}],
)
def test_protocols_1_and_2_are_accepted(payload: Any) -> None:
    """The task is in the headers or, in protocol 1, in the body."""
    headers = {} if isinstance(payload, dict) and "task" in payload else {"task": NAME, "id": "x"}

    assert error_of(headers, payload) == ""
    assert task_name_and_id(headers, payload) == (NAME, "x")


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("2027-01-15T08:00:00+00:00", "it expired before a worker received it"),
        ("2027-01-15T07:59:59", "it expired before a worker received it"),
        ("2027-01-15T09:00:01+01:00", ""),
        ("2027-01-15T08:00:01", ""),
        (1_900_000_000, "expires must be a time such as 2030-01-31T12:00:00+00:00"),
        ("9999-12-31T00:00:00", "expires must be a time such as 2030-01-31T12:00:00+00:00"),
    ],
)
def test_an_expired_message_is_rejected(expires: object, expected: str) -> None:
    """A time without a zone is UTC, as in Celery."""
    assert error_of({"task": NAME, "id": "x", "expires": expires}, [[], {"job": {}}, {}]) == expected


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        ("2027-01-15T08:03:00+00:00", ""),
        ("2027-01-15T08:03:00", ""),
        ("2027-01-15T09:03:00+01:00", ""),
        ("1971-01-01T00:00:00Z", ""),
        ("2027-01-15T08:03:00.001", "eta: 2027-01-15T08:03:00.001 is 180 s ahead, and at most 180 s are allowed; "),
        ("2027-01-15T08:50:00", "eta: 2027-01-15T08:50:00 is 3,000 s ahead, and at most 180 s are allowed; "),
        ("2027-01-15T08:03:00-00:01", "eta: 2027-01-15T08:03:00-00:01 is 240 s ahead"),
    ],
)
def test_an_eta_beyond_the_time_that_a_worker_may_hold_a_message_is_rejected(eta: str, expected: str) -> None:
    """The reason names the time, the limit and the remedy."""
    reason = error_of({"task": NAME, "id": "x", "eta": eta}, [[], {"job": {}}, {}])

    assert reason.startswith(expected)
    assert bool(reason) == bool(expected)
    assert not reason or reason.endswith("send the message later, or without eta and countdown")


def test_a_worker_holds_a_bounded_number_of_bytes_of_delayed_messages() -> None:
    """Messages count with their size until they are due."""
    delayed = DelayedMessages()
    size = DELAYED_BYTES_MAX // 4 - OVERHEAD

    assert [delayed.add(NOW + delay_s, size, now=NOW) for delay_s in (3, 1, 4, 2, 5)] == [True] * 4 + [False]
    assert delayed.add(NOW, DELAYED_BYTES_MAX, now=NOW)
    assert not delayed.add(NOW + 9, size, now=NOW + 0.9)
    assert delayed.add(NOW + 9, size, now=NOW + 1)
    assert [delayed.add(NOW + 9, size, now=NOW + 3) for _ in range(3)] == [True, True, False]


def test_no_reason_quotes_the_job() -> None:
    """Reasons are logged, jobs are confidential."""
    job = {"audio_url": "https://recordings.example/secret.wav"}

    assert "secret" not in error_of({"task": NAME, "id": "x"}, [job, job, job])
    assert "secret" not in error_of({"task": NAME, "id": "x"}, {"args": job, "kwargs": [job]})
