"""Publications to the remote control of workers: which commands they obey, and to which addresses they reply."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis

from tests.security.envelopes import CORPUS
from voicequeue.diagnostics.checkup import inspect, results
from voicequeue.storage.connection.keyspace import celery_root
from voicequeue.storage.job_store import JobStore
from workers.messaging.message_decoding import InvalidMessageError
from workers.messaging.remote_control import COMMANDS, EVENTS, REPLIES, decode_broadcast, reply_queue

UUID = "0a1b2c3d-0a1b-3c2d-8e4f-0a1b2c3d4e5f"


def enveloped(body: Any, **more: Any) -> bytes:
    """Return a publication with this body."""
    return json.dumps({"body": json.dumps(body), "content-type": "application/json", **more}).encode()


def accepted(body: Any, *, may_stop: bool = False) -> dict[str, Any]:
    """Return the command that a worker executes."""
    envelope = decode_broadcast(
        enveloped(body, headers={"clock": 10**30, "compression": ""}), COMMANDS, may_stop=may_stop
    )
    assert envelope["headers"] == envelope["properties"] == {}
    command: dict[str, Any] = json.loads(envelope["body"])
    return command


def test_an_inspection_keeps_only_its_flags_its_workers_and_its_address() -> None:
    """Celery would pass on every argument, and evaluate patterns of unbounded cost."""
    address = {"exchange": REPLIES, "routing_key": UUID}
    body = {"method": "active", "destination": ["a@b"], "ticket": "t", "reply_to": {**address, "more": 1}}

    assert accepted({**body, "arguments": {"safe": True, "state": 1}, "more": 1}) == {
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
def test_every_other_command_is_rejected_with_a_short_reason(body: Any, reason: str) -> None:
    """The log contains the reason, and nothing else of the publication."""
    with pytest.raises(InvalidMessageError, match=reason.replace("(", r"\(")) as raised:
        accepted(body)
    assert len(str(raised.value)) < 120


def test_a_worker_accepts_shutdown_only_if_flower_is_not_read_only() -> None:
    """No other command is accepted then either."""
    assert accepted({"method": "shutdown", "arguments": {"msg": "x"}}, may_stop=True)["arguments"] == {}
    with pytest.raises(InvalidMessageError):
        accepted({"method": "cancel_consumer", "arguments": {"queue": "poll"}}, may_stop=True)


@pytest.mark.parametrize("exchange", [COMMANDS, EVENTS])
def test_every_publication_is_a_command_or_rejected(exchange: str) -> None:
    """Any other error would end the worker."""
    numbers = enveloped({"__type__": "decimal", "__value__": "zz"}), b'{"__type__": "decimal", "__value__": "zz"}'
    for data in (*CORPUS.values(), *numbers, b"", b"\xff", b"[" * 100_000, b"1" * 5_000, enveloped("x" * 3_000_000)):
        with suppress(InvalidMessageError):
            decode_broadcast(data, exchange)


@pytest.mark.parametrize(("key", "kind"), [("unacked", "hash"), ("unacked_index", "zset"), ("intake", "list")])
def test_the_doctor_names_a_key_of_a_wrong_type_and_the_fix(
    store: JobStore, redis: Redis, prefix: str, key: str, kind: str
) -> None:
    """Each worker ends at each start until the key is deleted."""
    name = f"{celery_root(prefix)}{key}"
    redis.set(name, "x")
    [finding] = [remark for remark in results(inspect(redis, store)) if remark.check == "queues"]

    assert finding.message == f"the key {name} is a string and must be a {kind}: no worker can run"
    assert f"DEL {name}" in finding.action


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
    """Each of them would make Flower reconnect, and miss events meanwhile."""
    with pytest.raises(InvalidMessageError):
        decode_broadcast(enveloped(event), EVENTS)


def test_events_as_workers_send_them_pass() -> None:
    """Single events and lists of events."""
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
        assert json.loads(decode_broadcast(enveloped(body), EVENTS)["body"]) == body
