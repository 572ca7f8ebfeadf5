"""The command `enqueue`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.conftest import Command
from tests.store.life import NOW, accept_order, apply_transition, claim_admitted, dump_keys, fail_job, get_job
from tests.support.jobs import LYRICS, URL
from voicequeue import FailureCode, State, VoiceQueue
from voicequeue.storage.job_store import JobStore

A, B, C, D = (f"https://recordings.example/{letter}.wav" for letter in "abcd")


def test_a_job_is_enqueued_by_its_options(command: Command, queue: VoiceQueue) -> None:
    """Every field of a job has one; the song is JSON; metadata can be repeated."""
    ended = command(
        "enqueue", "--audio-url", URL, "--song", json.dumps({"prompt": LYRICS}), "--name", "Ana", "--batch", "b",
        "--priority", "high", "--key", "k", "--metadata", "a=1", "--metadata", "b=x=y", "--callback-url", A,
        "--max-credits", 19, "--json",
    )  # fmt: skip

    assert (ended.code, ended.err) == (0, "")
    spec = queue.get(ended.json()["id"]).spec
    assert (spec.name, spec.batch, spec.priority, spec.key) == ("Ana", "b", "high", "k")
    assert (spec.metadata, spec.callback_url, spec.max_credits) == ({"a": "1", "b": "x=y"}, A, 19)
    assert spec.song is not None
    assert spec.song.prompt == LYRICS


def test_a_job_that_was_enqueued_is_shown(command: Command, queue: VoiceQueue) -> None:
    """As text with id and state; as JSON as `job` prints it."""
    for_people = command("enqueue", "--audio-url", URL, "--name", "Ana")
    for_scripts = command("enqueue", "--audio-url", URL, "--json")

    [named] = [job for job in queue.jobs() if job.spec.name]
    assert for_people.out.startswith(f"{named.id}  queued  voice\n")
    added = {"is_new": True, "estimated_credits": 4, "position": 2, "further_job_ids": []}
    assert for_scripts.json() == {**queue.get(for_scripts.json()["id"]).as_dict(), **added}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "exactly one of audio_url and persona_id"),
        (["--audio-url", URL, "--persona-id", "p"], "exactly one of audio_url and persona_id"),
        (["--persona-id", "p"], "song is required"),
        (["--audio-url", "nowhere"], "audio_url: must be an http"),
        (["--audio-url", URL, "--song", "{"], "song: is not readable as JSON"),
        (["--audio-url", URL, "--song", '"la"'], "song: "),
        (["--audio-url", URL, "--song", '{"prompt": "la", "mv": "chirp"}'], "song.mv: must be a sonic model"),
        (["--audio-url", URL, "--metadata", "a"], "metadata: must be NAME=VALUE, not 'a'"),
        (["--audio-url", URL, "--metadata", "=a"], "metadata: must be NAME=VALUE"),
        (["--audio-url", URL, "--batch", "a b"], "batch: must be 1 to 100"),
        (["--audio-url", URL, "--max-credits", "3"], "max_credits: 3 is less than the 4"),
        (["--audio-url", URL, "--max-credits", "x"], "--max-credits"),
        (["--audio-url", URL, "--priority", "urgent"], "'high'"),
        (["--audio-url", URL, "--name", "\udcff"], "name: "),
        (["--recording", URL], "--recording"),
    ],
)
def test_invalid_input_is_reported_on_standard_error(
    command: Command, redis: Redis, prefix: str, options: list[str], message: str
) -> None:
    """Exit code 2, the name of the option or field, and nothing is enqueued."""
    ended = command("enqueue", *options)

    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert dump_keys(redis, prefix) == {}


def test_the_same_key_is_the_same_job(command: Command) -> None:
    """The same content gives the same id; other content exits with 2 and names the key."""
    first = command("enqueue", "--audio-url", URL, "--key", "k", "--json").json()

    assert command("enqueue", "--audio-url", URL, "--key", "k", "--json").json() == {**first, "is_new": False}
    conflict = command("enqueue", "--audio-url", A, "--key", "k")
    assert conflict.code == 2
    assert "key: 'k'" in conflict.err


@pytest.mark.parametrize(("state", "code"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.UNSURE, 1)])
def test_wait_exits_with_0_only_if_the_job_succeeded(
    command: Command, store: JobStore, state: State, code: int
) -> None:
    """Failed and unsure jobs exit with 1."""

    def settle() -> None:
        eventually(lambda: store.admit(NOW, at_most=1).by_stage)
        [job_id] = store.list_ids()
        claim_admitted(store, job_id)
        if state is State.UNSURE:
            apply_transition(store, get_job(store, job_id), State.UNSURE)
        elif state is State.FAILED:
            fail_job(store, get_job(store, job_id), FailureCode.REFUSED)
        else:
            apply_transition(store, accept_order(store, job_id), State.SUCCEEDED)

    with ThreadPoolExecutor(1) as thread:
        settling = thread.submit(settle)
        ended = command("enqueue", "--audio-url", URL, "--wait", "--json")
        settling.result()

    assert (ended.code, ended.json()["state"]) == (code, state)


def test_an_unknown_model_is_a_note(command: Command) -> None:
    """The job is enqueued."""
    ended = command("enqueue", "--audio-url", URL, "--song", '{"prompt": "la", "mv": "sonic-v77"}')

    assert ended.code == 0
    assert ended.err == "note: mv: 'sonic-v77' is not a model this release knows\n"


# ── what it costs ─────────────────────────────────────────────────────────────────────────────────

SONG = json.dumps({"prompt": LYRICS})


def test_a_new_job_says_what_it_costs_and_whether_the_balance_suffices(command: Command, store: JobStore) -> None:
    """Stage by stage; a shared voice is not paid again, and an existing job costs nothing more."""
    store.flow_control.record_balance(500, spent_before=0, requested_at=NOW, now=NOW)

    first = command("enqueue", "--audio-url", URL, "--song", SONG, "--reuse", "--key", "k").out
    shares = command("enqueue", "--audio-url", URL, "--song", SONG, "--reuse", "--key", "l").out

    assert "cost       up to 19 credits (voice 4, music 15); 500 were left at" in first
    assert first.endswith(": enough\n")
    assert "cost       up to 15 credits (music 15; the voice is shared);" in shares
    again = command("enqueue", "--audio-url", URL, "--song", SONG, "--reuse", "--key", "k").out
    assert again.endswith("cost       nothing more: this job existed\n")


def test_a_balance_that_does_not_suffice_is_said(command: Command, store: JobStore) -> None:
    """The job waits until it does."""
    store.flow_control.record_balance(10, spent_before=0, requested_at=NOW, now=NOW)

    assert "9 too few" in command("enqueue", "--audio-url", URL, "--song", SONG).out


def test_a_dry_run_enqueues_nothing(command: Command, redis: Redis, prefix: str, queue: VoiceQueue) -> None:
    """It prints whether the job is new, and what it would cost."""
    before = dump_keys(redis, prefix)

    shown = command("enqueue", "--audio-url", URL, "--song", SONG, "--key", "k", "--dry-run")

    assert shown.code == 0
    assert "dry run, nothing was enqueued: a new job for 19 credits (voice 4, music 15)" in shown.out
    assert command("enqueue", "--audio-url", URL, "--key", "k", "--dry-run", "--json").json() == {
        "is_new": True,
        "credits": 4,
        "balance": None,
        "is_affordable": None,
    }
    assert dump_keys(redis, prefix) == before
    command("enqueue", "--audio-url", URL, "--key", "k")
    assert (
        "the job exists, and costs nothing more"
        in command("enqueue", "--audio-url", URL, "--key", "k", "--dry-run").out
    )
    assert command("enqueue", "--audio-url", A, "--key", "k", "--dry-run").code == 2


def test_a_job_that_has_not_settled_in_time_exits_with_4(command: Command, queue: VoiceQueue) -> None:
    """It is printed as it is, and stays in the queue."""
    ended = command("enqueue", "--audio-url", URL, "--wait", "--timeout", "0.1", "--json")

    assert ended.code == 4
    assert queue.get(ended.json()["id"]).state is State.QUEUED
    assert json.loads(ended.err.splitlines()[-1])["error"]["code"] == "timeout"


@pytest.mark.parametrize(
    "arguments",
    [
        ("enqueue", "--audio-url", URL, "--timeout", "5"),
        ("enqueue", "--audio-url", URL, "--dry-run", "--wait"),
        ("archive", "--reason", "x"),
        ("archive", "--job", "x"),
        ("archive", "--backfill", "--limit", "5"),
        ("callbacks", "--reason", "x"),
        ("callbacks", "--secret", URL, "--batch", "b"),
        ("callbacks", "--all-undelivered", "--limit", "5"),
        ("review", "--yes"),
        ("review", "x", "--abandon", "--limit", "5"),
        ("rejects", "--clear", "--limit", "5"),
        ("personas", "--forget", "x", "--limit", "5"),
        ("limits", "--reason", "x"),
        ("doctor", "--audit", "--strict"),
        ("doctor", "--yes"),
        ("erase", "--metadata", "a=1", "--dry-run", "--certificate", "x.txt"),
        ("keys", "rotate", "x", "--now", "--overlap", "2h"),
        ("keys", "callback-secret", "x", "--overlap", "2h"),
    ],
    ids=" ".join,
)
def test_an_option_without_effect_is_refused(
    command: Command, redis: Redis, prefix: str, arguments: tuple[str, ...]
) -> None:
    """It is probably a mistake, and nothing is changed."""
    ended = command(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert "--" in ended.err
    assert dump_keys(redis, prefix) == {}
