"""Publications to the remote control of workers: what they obey, and where they answer."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis

from tests.security.envelopes import CORPUS
from voicequeue.diagnostics.checkup import look, remarks
from voicequeue.storage.job_store import Store
from voicequeue.storage.keyspace import celery_root
from workers.message_decoding import UnsoundError
from workers.remote_control import COMMANDS, EVENTS, REPLIES, received, reply_queue

UUID = "0a1b2c3d-0a1b-3c2d-8e4f-0a1b2c3d4e5f"


def enveloped(body: Any, **more: Any) -> bytes:
    """Write a publication."""
    return json.dumps({"body": json.dumps(body), "content-type": "application/json", **more}).encode()


def obeyed(body: Any, *, may_stop: bool = False) -> dict[str, Any]:
    """Return the command that a worker carries out."""
    envelope = received(enveloped(body, headers={"clock": 10**30, "compression": ""}), COMMANDS, may_stop=may_stop)
    assert envelope["headers"] == envelope["properties"] == {}
    command: dict[str, Any] = json.loads(envelope["body"])
    return command


def test_a_question_keeps_its_flags_its_workers_and_its_address_and_nothing_else() -> None:
    """Celery passes all arguments on, and carries out patterns that take for ever."""
    address = {"exchange": REPLIES, "routing_key": UUID}
    body = {"method": "active", "destination": ["a@b"], "ticket": "t", "reply_to": {**address, "more": 1}}

    assert obeyed({**body, "arguments": {"safe": True, "state": 1}, "more": 1}) == {
        **body,
        "arguments": {"safe": True},
        "reply_to": address,
    }
    assert reply_queue(UUID) == f"{UUID}.{REPLIES}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"method": "revoke"}, "workers do not accept the command 'revoke'"),
        ({"method": 90 * "x"}, "workers do not accept the command 'xxxx"),
        ({"method": ["ping"]}, "workers do not accept"),
        ({"method": "shutdown"}, "workers do not accept"),
        ({"method": "ping", "matcher": "pcre", "pattern": "(a+)+$"}, "patterns"),
        ({"method": "ping", "destination": "a@b"}, "destination must be"),
        ({"method": "ping", "destination": [1]}, "destination must be"),
        ({"method": "ping", "reply_to": {"exchange": "", "routing_key": "unacked"}}, "reply_to must name"),
        ({"method": "ping", "reply_to": {"exchange": REPLIES, "routing_key": "zz"}}, "reply_to must name"),
        ({"method": "ping", "reply_to": {"exchange": REPLIES, "routing_key": [UUID]}}, "reply_to must name"),
        ({"method": "ping", "reply_to": {"exchange": REPLIES, "routing_key": UUID}, "ticket": 1}, "ticket must be"),
        ([], "must be an object"),
    ],
)
def test_all_else_is_refused_with_a_short_reason(body: Any, reason: str) -> None:
    """The log has it, and nothing else of what was published."""
    with pytest.raises(UnsoundError, match=reason.replace("(", r"\(")) as refused:
        obeyed(body)
    assert len(str(refused.value)) < 120


def test_a_worker_lets_itself_be_stopped_only_where_flower_may_do_more_than_show() -> None:
    """Nothing else is obeyed there either."""
    assert obeyed({"method": "shutdown", "arguments": {"msg": "x"}}, may_stop=True)["arguments"] == {}
    with pytest.raises(UnsoundError):
        obeyed({"method": "cancel_consumer", "arguments": {"queue": "poll"}}, may_stop=True)


@pytest.mark.parametrize("exchange", [COMMANDS, EVENTS])
def test_whatever_is_published_is_a_command_or_refused(exchange: str) -> None:
    """No other error comes out of it: it would end the worker."""
    numbers = enveloped({"__type__": "decimal", "__value__": "zz"}), b'{"__type__": "decimal", "__value__": "zz"}'
    for data in (*CORPUS.values(), *numbers, b"", b"\xff", b"[" * 100_000, b"1" * 5_000, enveloped("x" * 3_000_000)):
        with suppress(UnsoundError):
            received(data, exchange)


@pytest.mark.parametrize(("key", "kind"), [("unacked", "hash"), ("unacked_index", "zset"), ("intake", "list")])
def test_the_doctor_names_a_key_of_a_wrong_type_with_its_cure(
    store: Store, redis: Redis, prefix: str, key: str, kind: str
) -> None:
    """Each worker ends because of it, at each start, until it is deleted."""
    name = f"{celery_root(prefix)}{key}"
    redis.set(name, "x")
    found = [each for each in remarks(look(redis, store)) if each.check == "queues"]

    assert [each.what for each in found] == [f"the key {name} is a string and must be a {kind}: no worker can work"]
    assert f"DEL {name}" in found[0].todo


@pytest.mark.parametrize(
    "event",
    [
        "x",
        [5],
        {},
        {"type": "worker-online"},
        {"type": 1, "hostname": "a@b"},
        {"type": "worker-online", "hostname": "a@b", "clock": "x"},
        {"type": "worker-online", "hostname": "a@b", "timestamp": None},
        [{"type": "task-sent", "hostname": "a@b", "pid": 10**30}],
    ],
)
def test_an_event_that_flower_could_not_sort_is_dropped(event: Any) -> None:
    """Each of them would make Flower connect anew, and miss what is published meanwhile."""
    with pytest.raises(UnsoundError):
        received(enveloped(event), EVENTS)


def test_events_as_workers_send_them_pass() -> None:
    """One by one, and many together."""
    event = {
        "type": "task-sent",
        "hostname": "a@b",
        "clock": 7,
        "utcoffset": -1,
        "pid": 3,
        "timestamp": 1.5,
        "uuid": "x",
    }

    for body in (event, [event, event]):
        assert json.loads(received(enveloped(body), EVENTS)["body"]) == body
