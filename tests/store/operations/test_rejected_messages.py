"""Messages that became no job: what is kept of them, how many, and how they are shown."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from redis import Redis

from tasks.enqueue import take
from tests.store.conftest import Command
from tests.store.life import NOW
from tests.support.jobs import URL
from voicequeue import InvalidJob, KeyConflict, RejectedMessage, VoiceQueue
from voicequeue.domain.job import iso
from voicequeue.storage.job_store import Store
from voicequeue.storage.rejected_messages import BYTES_MAX, JOB_MAX, KEPT


def message(number: int = 0, job: Any = None, reason: str = "why") -> RejectedMessage:
    """A rejected message."""
    return RejectedMessage(NOW + number, f"id-{number}", "voicequeue.enqueue", reason, job)


def test_they_come_back_as_they_were_the_newest_first(store: Store, queue: VoiceQueue) -> None:
    """With the job as JSON says it, whatever letters are in it."""
    given = [message(1, {"name": "Zoë 🎵"}), message(2, [1, None, 2.5]), message(3, "a text")]
    for each in given:
        store.rejects.add(each)

    assert queue.rejects() == given[::-1]
    assert queue.rejects(1) == given[:1:-1]
    assert queue.rejects(0) == []
    assert queue.status().rejects == 3


def test_only_the_last_thousand_are_kept(store: Store, redis: Redis, prefix: str) -> None:
    """A sender that goes wild fills no memory."""
    redis.lpush(f"{{{prefix}}}:rejected_messages", *["{}"] * KEPT)

    store.rejects.add(message(1))

    assert store.rejects.count() == KEPT
    assert store.rejects.latest(1) == [message(1)]


def test_they_have_no_more_than_so_many_bytes_in_all(store: Store, redis: Redis, prefix: str) -> None:
    """Of whatever letters they are, also where a release that did not count them left many; the oldest go."""
    list_of_them, long = f"{{{prefix}}}:rejected_messages", "語" * JOB_MAX
    before = {"at": NOW, "message_id": "old", "task": "t", "reason": "r", "job": long}
    redis.lpush(list_of_them, *[json.dumps(before, ensure_ascii=False)] * 100)
    for number in range(100):
        store.rejects.add(message(number, long if number % 3 else "short"))
        lines: Any = redis.lrange(list_of_them, 0, -1)
        size = sum(len(line.encode()) for line in lines)
        assert BYTES_MAX - 100_000 < size <= BYTES_MAX
        assert int(str(redis.get(f"{list_of_them}:bytes"))) == size

    found = store.rejects.take()
    assert [each.message_id for each in found[:100]] == [f"id-{99 - place}" for place in range(100)]
    store.rejects.add(message(1))
    assert store.rejects.take() == [message(1)]
    assert not redis.exists(list_of_them, f"{list_of_them}:bytes")


def test_of_a_long_one_the_beginning_is_kept(store: Store) -> None:
    """Of the job, the reason and the names."""
    long = "x" * 100_000
    for job in ({"name": long}, long, long.encode(), [long]):
        store.rejects.add(RejectedMessage(NOW, long, long, long, job))

    for found in store.rejects.latest():
        assert isinstance(found.job, str)
        assert found.job.endswith("x…")
        assert len(found.job) <= JOB_MAX + 1
        assert len(found.message_id + found.task + found.reason) < 3_000


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        (b"\xff\xfe", "\ufffd\ufffd"),
        ({"a": math.nan}, "{'a': nan}"),
        ({"a": {1}}, "{'a': {1}}"),
        (nested(100_000), "(nested too deeply)"),
    ],
    ids=["bytes", "not a number", "not JSON", "nested"],
)
def test_what_is_no_json_is_kept_as_a_text(store: Store, job: Any, kept: str) -> None:
    """So that there is nothing that cannot be kept."""
    store.rejects.add(message(1, job))

    assert store.rejects.latest()[0].job == kept


def test_clearing_gives_them_for_the_last_time(store: Store, queue: VoiceQueue) -> None:
    """All of them, and afterwards there are none."""
    store.rejects.add(message(1))

    assert queue.clear_rejects() == [message(1)]
    assert (queue.clear_rejects(), queue.rejects(), queue.status().rejects) == ([], [], 0)


# ── how they come there ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("args", "named", "reason"),
    [
        ([], {}, "job: must be given once, as the argument job or as the only positional argument"),
        ([{}, {}], {}, "job: must be given once, as the argument job or as the only positional argument"),
        ([{}], {"job": {}}, "job: must be given once, as the argument job or as the only positional argument"),
        ([{"audio_url": URL}], {"x": 1}, "x: is not an argument; the only argument is job"),
        ([17], {}, 'job: must be an object such as {"audio_url": "https://…"}'),
        ([], {"job": {"audio_url": URL, "mv": 1}}, "mv: is not known here"),
        ([], {"job": {}}, "exactly one of audio_url and persona_id is required"),
    ],
)
def test_arguments_that_are_no_job_are_kept_with_the_reason(
    store: Store, args: list[Any], named: dict[str, Any], reason: str
) -> None:
    """The sender's mistake is told as such, and what was given is there to be mended."""
    with pytest.raises(InvalidJob):
        take(store, args, named, message_id="id-1", now=NOW)

    [found] = store.rejects.latest()
    assert (found.at, found.message_id, found.task, found.reason) == (NOW, "id-1", "voicequeue.enqueue", reason)
    assert found.job in (named.get("job"), {"args": args, "kwargs": named})


def test_a_message_that_comes_twice_is_one_job_and_another_one_with_its_id_is_rejected(store: Store) -> None:
    """The id stands for the key where there is none."""
    first = take(store, [{"audio_url": URL}], {}, message_id="id-1", now=NOW)

    assert take(store, [], {"job": {"audio_url": URL}}, message_id="id-1", now=NOW + 1) == first
    with pytest.raises(KeyConflict):
        take(store, [{"audio_url": URL, "name": "other"}], {}, message_id="id-1", now=NOW)
    assert store.rejects.latest()[0].reason.startswith(f"key: 'message-id-1' already belongs to job {first}")


def test_a_defect_of_ours_is_kept_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said stays in the log: it may quote the job."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(store, "enqueue", broken)
    with pytest.raises(ZeroDivisionError):
        take(store, [{"audio_url": URL}], {}, message_id="id-1", now=NOW)

    assert store.rejects.latest()[0].reason == "a defect of voicequeue: ZeroDivisionError"


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def test_the_command_shows_what_when_and_why(command: Command, store: Store) -> None:
    """A line for each fact; the job shortened, nothing in it that a terminal obeys."""
    store.rejects.add(message(1, {"name": "\x1b[31m[red]" + "x" * 500}, "name: [too] long"))

    told = command("rejects")

    assert told.code == 0
    assert "voicequeue.enqueue  id-1" in told.out
    assert "name: [too] long" in told.out
    assert "\x1b" not in told.out
    assert "x" * 150 in told.out
    assert "x" * 250 not in told.out


def test_the_command_gives_json_as_many_as_are_asked_for(command: Command, store: Store) -> None:
    """The shape that scripts may rely on."""
    for number in range(3):
        store.rejects.add(message(number, {"name": "a"}))

    assert command("rejects", "--json", "--limit", "1").json() == [
        {"at": iso(NOW + 2), "message_id": "id-2", "task": "voicequeue.enqueue", "reason": "why", "job": {"name": "a"}}
    ]
    assert len(command("rejects", "--json").json()) == 3


def test_the_command_clears_what_it_shows(command: Command, store: Store) -> None:
    """All at once, however many may be shown; the status tells how many there are."""
    for number in range(60):
        store.rejects.add(message(number))
    assert "rejected   60 messages, see: voicequeue rejects" in command("status").out

    cleared = command("rejects", "--clear")

    assert cleared.out.count("id-") == 60
    assert "60 messages deleted" in cleared.out
    assert command("rejects").out == "no messages were rejected\n"
    assert "rejected" not in command("status").out
