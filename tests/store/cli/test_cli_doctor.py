"""`doctor`: what is wrong in words, and mended after a yes."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.damage import Damaged, whole
from tests.store.life import dump, everything_agrees, put
from tests.support.jobs import numbered
from voicequeue import State
from voicequeue.storage.job_store import Store


@pytest.fixture
def damaged(redis: Redis, store: Store, prefix: str) -> Damaged:
    """A pending job without a slot, a slot without a job, and a batch that counts one too many."""
    sound = whole(redis, store, prefix)
    redis.zrem(sound.key("in_flight"), sound.jobs[State.PENDING])
    redis.zadd(sound.key("in_flight"), {"ghost": 1})
    redis.hincrby(sound.key("batch:b"), "failed", 1)
    return sound


def test_a_sound_store_ends_with_0(command: Command, redis: Redis, store: Store, prefix: str) -> None:
    """And is left as it is, whatever was asked for."""
    whole(redis, store, prefix)
    before = dump(redis, prefix)

    looked, repaired = command("doctor", "--audit"), command("doctor", "--audit", "--repair")

    assert (looked.code, repaired.code) == (0, 0)
    assert "sound" in looked.out
    assert looked.out == repaired.out
    assert command("doctor", "--audit", "--json").json() == {"sound": True, "findings": []}
    assert dump(redis, prefix) == before


def test_an_audit_says_what_is_wrong_and_changes_nothing(
    command: Command, redis: Redis, prefix: str, damaged: Damaged
) -> None:
    """By kind, a line each, with totals."""
    before = dump(redis, prefix)

    told = command("doctor", "--audit")

    assert told.code == 1
    for expected in (
        f"in_flight: job {damaged.jobs[State.PENDING]} is missing",
        "in_flight: job ghost does not belong there",
        "batch b: counts 2 failed, the records say 1",
        "in_flight: missing  1",
    ):
        assert expected in told.out
    assert "3 findings" in told.err
    assert dump(redis, prefix) == before


def test_findings_for_scripts(command: Command, damaged: Damaged) -> None:
    """Each with its kind, its parts, and the same words."""
    told = command("doctor", "--audit", "--json")

    assert told.code == 1
    found = told.json()
    assert found["sound"] is False
    by_text = {finding["text"]: finding for finding in found["findings"]}
    ghost = by_text["in_flight: job ghost does not belong there"]
    assert (ghost["kind"], ghost["index"], ghost["job_id"], ghost["belongs"]) == (
        "in_flight: too much",
        "in_flight",
        "ghost",
        False,
    )
    drift = by_text["batch b: counts 2 failed, the records say 1"]
    assert (drift["counters"], drift["field"], drift["found"], drift["expected"]) == ("batch:b", "failed", 2, 1)


def test_many_findings_of_a_kind_are_counted(command: Command, redis: Redis, store: Store, prefix: str) -> None:
    """Fifty are shown."""
    put(store, *numbered(60))
    redis.delete(f"{{{prefix}}}:lane:1:")

    told = command("doctor", "--audit")

    assert "lane:1:: missing  60" in told.out
    assert told.out.count("is missing") == 50
    assert "… and 10 more" in told.out


def test_without_a_yes_nothing_is_mended(command: Command, redis: Redis, prefix: str, damaged: Damaged) -> None:
    """The question says how much; no answer is no."""
    before = dump(redis, prefix)

    asked = command("doctor", "--audit", "--repair", stdin=b"n\n")

    assert asked.code == 1
    assert "repair 3 findings?" in asked.err
    assert dump(redis, prefix) == before


def test_a_repair_says_what_it_did_and_looks_again(
    command: Command, redis: Redis, prefix: str, damaged: Damaged
) -> None:
    """All is mended: the exit code is 0, and the next audit finds nothing."""
    told = command("doctor", "--audit", "--repair", "--yes")

    assert told.code == 0
    assert "3 repaired; auditing again" in told.out
    assert "sound" in told.out
    assert command("doctor", "--audit").code == 0
    everything_agrees(redis, prefix)


def test_a_repair_for_scripts(command: Command, damaged: Damaged) -> None:
    """What was found, how much was mended, and what is left."""
    told = command("doctor", "--audit", "--repair", "--yes", "--json").json()

    assert (told["sound"], len(told["findings"]), told["mended"], told["left"]) == (True, 3, 3, [])


def test_what_cannot_be_mended_is_left_and_ends_with_1(command: Command, redis: Redis, damaged: Damaged) -> None:
    """A state that only another release knows."""
    redis.hset(damaged.key(f"job:{damaged.jobs[State.QUEUED]}"), "state", "resting")

    told = command("doctor", "--audit", "--repair", "--yes")

    assert told.code == 1
    assert "1 skipped" in told.out
    assert "in the state 'resting'" in told.out


@pytest.mark.parametrize("arguments", [("--repair",), ("--repair", "--yes", "--json")])
def test_it_must_be_told_what_to_check(command: Command, arguments: tuple[str, ...]) -> None:
    """Wrong usage, which names the option."""
    ended = command("doctor", *arguments)

    assert ended.code == 2
    assert "--audit" in ended.err
