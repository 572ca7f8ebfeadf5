"""Whatever bytes another program writes into the queue `intake`, kombu and Celery can carry what is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils.json import dumps, loads

from tasks.enqueue import ENQUEUE, HiddenArguments, only_argument
from tests.security.envelopes import CORPUS, GOOD, HALF, INTAKE, LADEN, every_place, message, old, with_property
from voicequeue import InvalidJob, KeyConflict, Song, VoiceJob
from voicequeue.domain.spec import parse
from voicequeue.errors import DISCREET_MAX, FIELDS
from workers.consumer import ETA_MAX_S, fault_of_arguments
from workers.message_decoding import KEPT, sound
from workers.message_validation import UNREADABLE, fault

NOW = 1_800_000_000.0

TEXT = st.text(st.characters(exclude_categories=()), max_size=9)

#: All that JSON as Python reads it can say, also halves of characters, NaN and numbers of thousands of digits.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(10**4_200),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("__type__"), inner, max_size=3),
    max_leaves=9,
)
PARTS = st.sampled_from(["body", "headers", "properties", "content-type"])

#: A channel of kombu's, without Redis.
CHANNEL: Any = Connection("memory://").channel()
APP = Celery("test", set_as_current=False)


class Task:
    """What a request asks of its task."""

    ignore_result = True


def verdict(raw: bytes) -> str:
    """Do with a message what kombu and a worker do until the task runs; return why it is rejected, if it is."""
    envelope = sound(raw, INTAKE)
    received = CHANNEL.Message(loads(dumps([envelope, "", INTAKE]))[0], channel=CHANNEL)  # held, and put back
    assert received.errors == []
    payload = received.payload if received.content_type == "application/json" else None
    reason = fault(received.headers, received.content_type, payload, known=(ENQUEUE,), now=NOW, eta_max_s=ETA_MAX_S)
    reason = reason or str(fault_of_arguments(ENQUEUE, payload) or "")
    if not reason:
        HiddenArguments(received, app=APP, task=Task, headers=received.headers, body=received.body)
    return reason


def holds(raw: bytes) -> None:
    """Assert what kombu and Celery rely on."""
    envelope = sound(raw, INTAKE)
    again = sound(dumps(envelope).encode(), INTAKE)
    tags = {each["properties"].pop("delivery_tag") for each in (envelope, again)}
    assert len(tags) == 2
    assert again == envelope
    assert set(envelope["headers"]) <= {*KEPT, "eta", "expires", UNREADABLE}
    assert all(isinstance(each, str) for each in envelope["headers"].values())
    assert set(envelope["properties"]) <= {"delivery_info", "priority"}
    assert envelope["properties"]["delivery_info"] == {"exchange": "", "routing_key": INTAKE}
    verdict(raw)


@given(st.binary())
def test_any_bytes_become_a_message(raw: bytes) -> None:
    """One that says that it cannot be read."""
    holds(raw)
    assert verdict(raw) != ""


@settings(max_examples=150)
@given(PARTS, JSON, st.integers(0, 400), st.binary(max_size=2))
def test_any_envelope_becomes_a_message(part: str, value: Any, place: int, wrong: bytes) -> None:
    """Whatever a part of it is, and whatever bytes are in it."""
    raw = json.dumps({**message(), part: value}).encode()

    holds(raw)
    holds(raw[:place] + wrong + raw[place:])


@pytest.mark.parametrize("case", CORPUS)
def test_what_ended_a_worker_once_becomes_a_message(case: str) -> None:
    """The literals of tests/security/envelopes.py."""
    holds(CORPUS[case])


def test_a_message_with_anything_in_any_place_becomes_a_message() -> None:
    """Headers, properties, both protocols' bodies, options, arguments and the job."""
    messages = every_place()
    for raw in messages:
        holds(raw)

    assert len(messages) > 1_500


def test_no_message_brings_anything_that_celery_would_do_for_its_sender() -> None:
    """Other tasks, time limits, replies, a name to be shown, a queue to be put back into."""
    laden = sound(json.dumps(LADEN).encode(), INTAKE)

    assert laden["headers"] == {"task": ENQUEUE, "id": LADEN["headers"]["id"]}
    assert laden["body"] == json.dumps([[], {"job": GOOD}, {}])
    assert verdict(json.dumps(LADEN).encode()) == ""
    embedded = old(callbacks=[{"task": "voice.submit"}], timelimit=[1, 1], retries=9)
    assert json.loads(sound(json.dumps(embedded).encode(), INTAKE)["body"]) == [[], {"job": GOOD}, {}]


@pytest.mark.parametrize(
    "task", ["voice.submit", "music.poll", "callback.deliver", "celery.chord", "celery.backend_cleanup"]
)
def test_no_message_reaches_another_task(task: str) -> None:
    """A worker has many; other programs have one."""
    assert verdict(json.dumps(message(headers={"task": task})).encode()).startswith(f"there is no task '{task}'")


@pytest.mark.parametrize("tag", [HALF, "", "x", 7, None])
def test_the_senders_delivery_tag_is_not_used(tag: Any) -> None:
    """Two of its messages may have the same, and kombu would lose one."""
    raw = json.dumps(with_property("delivery_tag", tag)).encode()
    tags = {sound(raw, INTAKE)["properties"]["delivery_tag"] for _ in range(2)}

    assert len(tags) == 2
    assert tag not in tags
    assert verdict(raw) == ""


SECRET = "SECRET LYRIC of the customer https://signed.example/?sig=abc"

#: Names of the sender's, wherever a message can have some.
NAMED: dict[str, Any] = {
    "of the job": {"job": {**GOOD, SECRET: 1}},
    "of the song": {"job": {**GOOD, "song": {"prompt": "la", f"title.{SECRET}": 1}}},
    "of metadata": {"job": {**GOOD, "metadata": {SECRET: 1}}},
    "with half a character": {"job": {**GOOD, "metadata": {f"{SECRET}{HALF}": "x"}}},
    "of an argument": {SECRET: {}},
    "of many arguments": {f"{SECRET} {number}": {} for number in range(130_000)},
    "very long": {"job": {**GOOD, SECRET * 30_000: 1}},
}


@pytest.mark.parametrize("named", NAMED.values(), ids=list(NAMED))
def test_no_name_of_a_senders_shows_in_what_is_logged_of_its_message(named: dict[str, Any]) -> None:
    """Neither in the error's text for logs nor in its `repr`, which Celery puts into events; each of these, and
    the full text as well, is bounded."""
    with pytest.raises(InvalidJob) as caught:
        parse(only_argument([], named))

    shown = caught.value.discreet() + repr(caught.value)
    assert "SECRET" not in shown
    assert "signed" not in shown
    assert "an unknown field" in shown
    assert len(shown) < 2 * (DISCREET_MAX + 50)
    assert "SECRET" in str(caught.value)
    assert len(str(caught.value)) < 10_000


def test_a_known_field_is_named_in_what_is_logged() -> None:
    """So that an operator sees what a sender does wrong; a key and other values are not."""
    with pytest.raises(InvalidJob) as caught:
        parse({"audio_url": "ftp://x", "songs": [{"prompt": "la", "title": SECRET * 9}], SECRET: 1})

    said = caught.value.discreet()
    assert "audio_url: must be" in said
    assert "songs.0.title: " in said
    assert "an unknown field: is not known here" in said
    assert SECRET not in repr(KeyConflict(SECRET, "k5v2yj3q7m6xw4ra"))


def test_the_names_that_are_ours_are_those_of_a_job_and_its_song() -> None:
    """Only these are shown; a new field shows when it is listed."""
    assert {"job", "id", *VoiceJob.model_fields, *Song.model_fields} == FIELDS
