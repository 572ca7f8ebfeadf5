"""Rejected messages: what is stored, how many, and how they are shown."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from redis import Redis

from tasks.enqueue import enqueue_or_reject
from tests.store.conftest import Command
from tests.store.life import NOW
from tests.support.jobs import URL
from voicequeue import BudgetExceededError, InvalidJobError, KeyConflictError, RejectedMessage, VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.rejected_messages import BYTES_MAX, JOB_MAX, MESSAGES_MAX


def message(number: int = 0, job: Any = None, reason: str = "why") -> RejectedMessage:
    """Return a rejected message."""
    return RejectedMessage(NOW + number, f"id-{number}", "voicequeue.enqueue", reason, job)


def test_messages_are_returned_newest_first(store: JobStore, queue: VoiceQueue) -> None:
    """The job is returned as JSON, with any characters."""
    messages = [message(1, {"name": "Zoë 🎵"}), message(2, [1, None, 2.5]), message(3, "a text")]
    for rejected in messages:
        store.rejected_messages.add(rejected)

    assert queue.rejected_messages() == messages[::-1]
    assert queue.rejected_messages(1) == messages[:1:-1]
    assert queue.rejected_messages(0) == []
    assert queue.status().rejected_messages == 3


def test_a_message_is_found_by_its_id(store: JobStore, queue: VoiceQueue, command: Command) -> None:
    """A search for jobs shows it, because its sender does not know whether it was enqueued."""
    for number in (1, 2, 1):
        store.rejected_messages.add(message(number, reason="audio_url: must not be empty"))

    assert queue.rejected_messages(message_id="id-1") == [message(1, reason="audio_url: must not be empty")] * 2
    assert queue.rejected_messages(1, message_id="id-2") == [message(2, reason="audio_url: must not be empty")]
    assert queue.rejected_messages(message_id="id") == []
    shown = command("jobs", "--search", "id-2").out
    assert "this message was rejected" in shown
    assert "audio_url: must not be empty" in shown
    assert "rejected" not in command("jobs", "--search", "id-9").out

    as_json = command("jobs", "--search", "id-2", "--json")
    assert json.loads(as_json.out) == []
    assert "id-2 was rejected: audio_url: must not be empty" in json.loads(as_json.err)["note"]["message"]


def test_only_the_last_thousand_are_stored(store: JobStore, redis: Redis, prefix: str) -> None:
    """A faulty sender does not fill the memory."""
    redis.lpush(f"{{{prefix}}}:rejected_messages", *["{}"] * MESSAGES_MAX)

    store.rejected_messages.add(message(1))

    assert store.rejected_messages.count() == MESSAGES_MAX
    assert store.rejected_messages.latest(1) == [message(1)]


@pytest.mark.endurance
def test_the_total_size_is_limited(store: JobStore, redis: Redis, prefix: str) -> None:
    """This holds for any characters, and for messages of a release that did not count bytes; the oldest are deleted."""
    list_of_them, long = f"{{{prefix}}}:rejected_messages", "語" * JOB_MAX
    before = {"rejected_at": NOW, "message_id": "old", "task": "t", "reason": "r", "job": long}
    redis.lpush(list_of_them, *[json.dumps(before, ensure_ascii=False)] * 100)
    for number in range(100):
        store.rejected_messages.add(message(number, long if number % 3 else "short"))
        lines: Any = redis.lrange(list_of_them, 0, -1)
        size = sum(len(line.encode()) for line in lines)
        assert BYTES_MAX - 100_000 < size <= BYTES_MAX
        assert int(str(redis.get(f"{list_of_them}:bytes"))) == size

    messages = store.rejected_messages.pop_all()
    assert [rejected.message_id for rejected in messages[:100]] == [f"id-{99 - place}" for place in range(100)]
    store.rejected_messages.add(message(1))
    assert store.rejected_messages.pop_all() == [message(1)]
    assert not redis.exists(list_of_them, f"{list_of_them}:bytes")


def test_long_fields_are_truncated(store: JobStore) -> None:
    """The job, the reason and the names are truncated."""
    long = "x" * 100_000
    for job in ({"name": long}, long, long.encode(), [long]):
        store.rejected_messages.add(RejectedMessage(NOW, long, long, long, job))

    for rejected in store.rejected_messages.latest():
        assert isinstance(rejected.job, str)
        assert rejected.job.endswith("x…")
        assert len(rejected.job) <= JOB_MAX + 1
        assert len(rejected.message_id + rejected.task + rejected.reason) < 3_000


def nested() -> Any:
    """Return lists that are nested too deeply for JSON."""
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        (b"\xff\xfe", "\ufffd\ufffd"),
        ({"a": math.nan}, "{'a': nan}"),
        ({"a": {1}}, "{'a': {1}}"),
        (nested, "(nested too deeply)"),
    ],
    ids=["bytes", "not a number", "not JSON", "nested"],
)
def test_a_job_that_is_not_json_is_stored_as_text(store: JobStore, job: Any, kept: str) -> None:
    """Any job can be stored."""
    store.rejected_messages.add(message(1, job() if callable(job) else job))

    assert store.rejected_messages.latest()[0].job == kept


def test_clearing_returns_all_messages(store: JobStore, queue: VoiceQueue) -> None:
    """Afterwards there are none."""
    store.rejected_messages.add(message(1))

    assert queue.clear_rejected_messages() == [message(1)]
    assert (queue.clear_rejected_messages(), queue.rejected_messages(), queue.status().rejected_messages) == ([], [], 0)


# ── sources ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("args", "named", "reason"),
    [
        ([], {}, "job: must be given once, as the argument job or as the only positional argument"),
        ([{}, {}], {}, "job: must be given once, as the argument job or as the only positional argument"),
        ([{}], {"job": {}}, "job: must be given once, as the argument job or as the only positional argument"),
        ([{"audio_url": URL}], {"x": 1}, "x: is not an argument; the arguments are job and namespace"),
        ([17], {}, 'job: must be an object such as {"audio_url": "https://…"}'),
        ([], {"job": {"audio_url": URL, "mv": 1}}, "mv: is not known here"),
        ([], {"job": {}}, "exactly one of audio_url and persona_id is required"),
    ],
)
def test_invalid_arguments_are_stored_with_the_reason(
    store: JobStore, args: list[Any], named: dict[str, Any], reason: str
) -> None:
    """The sender's mistake is explained, and the arguments can be corrected."""
    with pytest.raises(InvalidJobError):
        enqueue_or_reject(store, args, named, message_id="id-1", now=NOW)

    [rejected] = store.rejected_messages.latest()
    assert (rejected.rejected_at, rejected.message_id, rejected.task, rejected.reason) == (
        NOW,
        "id-1",
        "voicequeue.enqueue",
        reason,
    )
    assert rejected.job in (named.get("job"), {"args": args, "kwargs": named})


def test_a_repeated_message_is_one_job_and_other_content_is_rejected(store: JobStore) -> None:
    """The message id is the key of a job without one."""
    first = enqueue_or_reject(store, [{"audio_url": URL}], {}, message_id="id-1", now=NOW)

    assert enqueue_or_reject(store, [], {"job": {"audio_url": URL}}, message_id="id-1", now=NOW + 1) == first
    with pytest.raises(KeyConflictError):
        enqueue_or_reject(store, [{"audio_url": URL, "name": "other"}], {}, message_id="id-1", now=NOW)
    assert store.rejected_messages.latest()[0].reason.startswith(f"key: 'message-id-1' already belongs to job {first}")


def test_a_message_over_a_hard_budget_is_kept_with_the_reason(store: JobStore) -> None:
    """It can be sent again when the budget allows it; the reason names whose budget it is, and when it resets."""
    store.flow_control.set_budget("namespace/shop", day=3, hard=True)

    with pytest.raises(BudgetExceededError):
        enqueue_or_reject(store, [{"audio_url": URL}], {"namespace": "shop"}, message_id="id-1", now=NOW)
    [rejected] = store.in_namespace("shop").rejected_messages.latest()
    assert rejected.reason.startswith(
        "the budget of namespace shop for this day does not allow 4 more credits (3 of 3 credits remaining)"
    )
    assert rejected.job == {"audio_url": URL}


def test_an_internal_error_is_stored_as_such(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is only in the log, because it may quote the job."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(JobStore, "enqueue", broken)
    with pytest.raises(ZeroDivisionError):
        enqueue_or_reject(store, [{"audio_url": URL}], {}, message_id="id-1", now=NOW)

    assert store.rejected_messages.latest()[0].reason == "a defect of voicequeue: ZeroDivisionError"


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def test_the_command_shows_messages_with_time_and_reason(command: Command, store: JobStore) -> None:
    """One line per fact; the job is shortened, without control characters."""
    store.rejected_messages.add(message(1, {"name": "\x1b[31m[red]" + "x" * 500}, "name: [too] long"))

    result = command("rejects")

    assert result.code == 0
    assert "voicequeue.enqueue  id-1" in result.out
    assert "name: [too] long" in result.out
    assert "\x1b" not in result.out
    assert "x" * 150 in result.out
    assert "x" * 250 not in result.out


def test_the_command_prints_json_up_to_the_limit(command: Command, store: JobStore) -> None:
    """The shape is an interface for scripts."""
    for number in range(3):
        store.rejected_messages.add(message(number, {"name": "a"}))

    assert command("rejects", "--json", "--limit", "1").json() == [
        {
            "rejected_at": to_iso8601(NOW + 2),
            "message_id": "id-2",
            "task": "voicequeue.enqueue",
            "reason": "why",
            "namespace": "",
            "job": {"name": "a"},
        }
    ]
    assert len(command("rejects", "--json").json()) == 3


def test_the_command_clears_messages(command: Command, store: JobStore) -> None:
    """All are deleted, regardless of the limit; the status shows their number."""
    for number in range(60):
        store.rejected_messages.add(message(number))
    assert "rejected   60 messages, see: voicequeue rejects" in command("status").out

    cleared = command("rejects", "--clear")

    assert cleared.out.count("id-") == 60
    assert "60 messages deleted" in cleared.out
    assert command("rejects").out == "no rejected messages\n"
    assert "rejected" not in command("status").out
