"""The command `doctor --audit`: findings, and their repair after a confirmation."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.damage import Damaged, consistent_store
from tests.store.life import assert_consistent, dump_keys, enqueue_jobs
from tests.support.jobs import numbered_voices
from voicequeue import State
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def damaged(redis: Redis, store: JobStore, prefix: str) -> Damaged:
    """Return a pending job without a slot, a slot without a job, and a batch that counts one too many."""
    sound = consistent_store(redis, store, prefix)
    redis.zrem(sound.key("in_flight"), sound.jobs[State.PENDING])
    redis.zadd(sound.key("in_flight"), {"ghost": 1})
    redis.hincrby(sound.key("batch:b"), "failed", 1)
    return sound


def test_a_sound_store_ends_with_0(command: Command, redis: Redis, store: JobStore, prefix: str) -> None:
    """And is unchanged, with every option."""
    consistent_store(redis, store, prefix)
    before = dump_keys(redis, prefix)

    looked, repaired = command("doctor", "--audit"), command("doctor", "--audit", "--repair")

    assert (looked.code, repaired.code) == (0, 0)
    assert "sound" in looked.out
    assert looked.out == repaired.out
    assert command("doctor", "--audit", "--json").json() == {"sound": True, "findings": []}
    assert dump_keys(redis, prefix) == before


def test_an_audit_says_what_is_wrong_and_changes_nothing(
    command: Command, redis: Redis, prefix: str, damaged: Damaged
) -> None:
    """One line for each finding, by kind, with totals."""
    before = dump_keys(redis, prefix)

    ended = command("doctor", "--audit")

    assert ended.code == 1
    for expected in (
        f"in_flight: job {damaged.jobs[State.PENDING]} is missing",
        "in_flight: job ghost does not belong there",
        "batch b: counts 2 failed, the records say 1",
        "in_flight: missing  1",
    ):
        assert expected in ended.out
    assert "3 findings" in ended.err
    assert dump_keys(redis, prefix) == before


def test_the_json_of_findings(command: Command, damaged: Damaged) -> None:
    """Each with its kind, its parts, and the text."""
    ended = command("doctor", "--audit", "--json")

    assert ended.code == 1
    output = ended.json()
    assert output["sound"] is False
    by_text = {finding["text"]: finding for finding in output["findings"]}
    ghost = by_text["in_flight: job ghost does not belong there"]
    assert (ghost["kind"], ghost["index"], ghost["job_id"], ghost["belongs"]) == (
        "in_flight: too much",
        "in_flight",
        "ghost",
        False,
    )
    drift = by_text["batch b: counts 2 failed, the records say 1"]
    assert (drift["counters"], drift["field"], drift["actual"], drift["expected"]) == ("batch:b", "failed", 2, 1)


def test_many_findings_of_a_kind_are_counted(command: Command, redis: Redis, store: JobStore, prefix: str) -> None:
    """Fifty are shown."""
    enqueue_jobs(store, *numbered_voices(60))
    redis.delete(f"{{{prefix}}}:lane:1:")

    ended = command("doctor", "--audit")

    assert "lane:1:: missing  60" in ended.out
    assert ended.out.count("is missing") == 50
    assert "… and 10 more" in ended.out


def test_without_a_yes_nothing_is_repaired(command: Command, redis: Redis, prefix: str, damaged: Damaged) -> None:
    """The question counts the findings; no answer is no."""
    before = dump_keys(redis, prefix)

    ended = command("doctor", "--audit", "--repair", stdin=b"n\n")

    assert ended.code == 1
    assert "repair 3 findings?" in ended.err
    assert dump_keys(redis, prefix) == before


def test_a_repair_reports_and_audits_again(command: Command, redis: Redis, prefix: str, damaged: Damaged) -> None:
    """All is repaired: the exit code is 0, and the next audit finds nothing."""
    ended = command("doctor", "--audit", "--repair", "--yes")

    assert ended.code == 0
    assert "3 repaired; auditing again" in ended.out
    assert "sound" in ended.out
    assert command("doctor", "--audit").code == 0
    assert_consistent(redis, prefix)


def test_the_json_of_a_repair(command: Command, damaged: Damaged) -> None:
    """The findings, how many were repaired, and what remains."""
    ended = command("doctor", "--audit", "--repair", "--yes", "--json").json()

    assert (ended["sound"], len(ended["findings"]), ended["repaired"], ended["remaining"]) == (True, 3, 3, [])


def test_what_cannot_be_repaired_remains_and_exits_with_1(command: Command, redis: Redis, damaged: Damaged) -> None:
    """A state of another release."""
    redis.hset(damaged.key(f"job:{damaged.jobs[State.QUEUED]}"), "state", "resting")

    ended = command("doctor", "--audit", "--repair", "--yes")

    assert ended.code == 1
    assert "1 skipped" in ended.out
    assert "in the state 'resting'" in ended.out


@pytest.mark.parametrize("arguments", [("--repair",), ("--repair", "--yes", "--json")])
def test_repair_needs_audit(command: Command, arguments: tuple[str, ...]) -> None:
    """Exit code 2; the message names the option."""
    ended = command("doctor", *arguments)

    assert ended.code == 2
    assert "--audit" in ended.err
