"""What a message from another program must look like, and what is said of one that does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance.messages import INTAKE, NAME, envelope
from workers.held_messages import OVERHEAD, WAITING_MAX, Waiting
from workers.message_decoding import sound, unreadable
from workers.message_validation import UNREADABLE, fault, name_and_id

NOW = 1_800_000_000.0

#: Anything that JSON can say.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def said(headers: dict[str, Any], payload: Any, content_type: Any = "application/json") -> str:
    """What is wrong with a message, where `voicequeue.enqueue` is the only task."""
    return fault(headers, content_type, payload, known={NAME}, now=NOW, eta_max_s=180)


def opened(message: Any, queue: str = INTAKE) -> dict[str, Any]:
    """What kombu gets of a message in a queue."""
    return sound(json.dumps(message).encode(), queue)


def test_a_sound_message_keeps_its_task_id_times_priority_and_arguments() -> None:
    """And nothing else; protocol 1 becomes protocol 2."""
    times = {"eta": "2027-01-15T09:00:01+01:00", "expires": "2027-01-15T09:00:00"}
    spelled = {"eta": "2027-01-15T08:00:01+00:00", "expires": "2027-01-15T09:00:00+00:00"}
    body = [[{"a": 1}], {}, {"callbacks": ["x"]}]
    second = envelope(body, headers={**times, "lang": "js"}, message_id="x")
    second["properties"]["priority"] = 3
    first = {**envelope({"task": NAME, "id": "x", "args": [{"a": 1}], "retries": 2, **times}), "headers": {}}

    for message, priority in ((second, {"priority": 3}), (first, {})):
        found = opened(message)
        assert found["headers"] == {"task": NAME, "id": "x", **spelled}
        assert json.loads(found["body"]) == [[{"a": 1}], {}, {}]
        assert found["properties"].pop("delivery_tag") != message["properties"]["delivery_tag"]
        assert found["properties"] == {"delivery_info": {"exchange": "", "routing_key": INTAKE}, **priority}


def test_a_message_of_the_workers_own_also_keeps_what_flower_and_traces_go_by() -> None:
    """And how often it was tried."""
    kept = {"argsrepr": "(['a'],)", "root_id": "r", "traceparent": "t", "retries": 2}
    found = opened(envelope([[["a"]], {}, None], headers={**kept, "timelimit": [1, 1]}, message_id="x"), "poll")

    assert found["headers"] == {"task": NAME, "id": "x", **kept}


def test_a_message_of_remote_control_stays_as_it_is() -> None:
    """Replies and commands are no tasks."""
    reply = envelope(headers={"clock": 7, "expires": 0.5})
    found = opened(reply, "x.reply.celery.pidbox")

    assert {**found, "properties": 0} == {**reply, "properties": 0}


def test_what_an_envelope_may_leave_out_is_filled_in() -> None:
    """Where it lies, and a delivery tag; each is another."""
    bare = {"body": "[]", "content-type": "application/json"}
    first, second = (opened(bare)["properties"] for _ in range(2))

    assert first["delivery_info"] == {"exchange": "", "routing_key": INTAKE}
    assert first["delivery_tag"] != second["delivery_tag"]


def test_an_envelope_that_cannot_be_opened_is_kept_whole() -> None:
    """As the text of one that says why, with the id where it can be read."""
    found = opened([1, "two"])

    assert json.loads(found["body"]) == [1, "two"]
    assert said(found["headers"], None, found["content-type"]) == "the envelope is not a JSON object"
    assert unreadable("x", "why", INTAKE)["headers"] == {UNREADABLE: "why"}
    named = opened(envelope(raw_body="e3t7", message_id="x"))
    assert (named["body"], named["headers"]["id"], named["headers"]["task"]) == ("{{{", "x", NAME)


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
        ("2027-01-15T08:00:00+00:00", "it expired before a worker received it"),
        ("2027-01-15T07:59:59", "it expired before a worker received it"),
        ("2027-01-15T09:00:01+01:00", ""),
        ("2027-01-15T08:00:01", ""),
        (1_900_000_000, "expires must be a time such as 2030-01-31T12:00:00+00:00"),
        ("9999-12-31T00:00:00", "expires must be a time such as 2030-01-31T12:00:00+00:00"),
    ],
)
def test_a_message_that_expired_is_not_taken(expires: object, expected: str) -> None:
    """A time without a zone is UTC, as Celery has it."""
    assert said({"task": NAME, "id": "x", "expires": expires}, [[], {"job": {}}, {}]) == expected


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
def test_a_message_waits_for_its_eta_no_longer_than_a_worker_may_hold_it(eta: str, expected: str) -> None:
    """The reason names the time, the limit and the cure."""
    reason = said({"task": NAME, "id": "x", "eta": eta}, [[], {"job": {}}, {}])

    assert reason.startswith(expected)
    assert bool(reason) == bool(expected)
    assert not reason or reason.endswith("send the message later, or without eta and countdown")


def test_a_worker_holds_a_bounded_number_of_bytes_for_messages_that_wait() -> None:
    """By their size; what is due takes no place, nor does what became due since."""
    waiting = Waiting()
    size = WAITING_MAX // 4 - OVERHEAD

    assert [waiting.add(NOW + place, size, now=NOW) for place in (3, 1, 4, 2, 5)] == [True] * 4 + [False]
    assert waiting.add(NOW, WAITING_MAX, now=NOW)
    assert not waiting.add(NOW + 9, size, now=NOW + 0.9)
    assert waiting.add(NOW + 9, size, now=NOW + 1)
    assert [waiting.add(NOW + 9, size, now=NOW + 3) for _ in range(3)] == [True, True, False]


def test_no_reason_quotes_the_job() -> None:
    """Reasons are logged."""
    job = {"audio_url": "https://recordings.example/secret.wav"}

    assert "secret" not in said({"task": NAME, "id": "x"}, [job, job, job])
    assert "secret" not in said({"task": NAME, "id": "x"}, {"args": job, "kwargs": [job]})
