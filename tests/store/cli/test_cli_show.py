"""The commands `status`, `jobs`, `job`, `retry` and `cancel`, as text and as JSON."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.conftest import Command
from tests.store.life import (
    NOW,
    REACHABLE,
    accept_order,
    apply_transition,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    job_with_song,
    refuse_order,
)
from tests.support.jobs import URL, numbered_voices, voice, voice_with_song
from voicequeue import FailureCode, Stage, State, VoiceQueue
from voicequeue.cli import app
from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore

# ── --json everywhere ─────────────────────────────────────────────────────────────────────────────


def commands(loaded: dict[str, Any]) -> dict[str, Any]:
    """Return every command by its name, those of groups by both names."""
    named: dict[str, Any] = {}
    for name, command in loaded.items():
        inner = commands(command.commands) if hasattr(command, "commands") else None
        named |= {f"{name} {subcommand}": what for subcommand, what in inner.items()} if inner else {name: command}
    return named


def test_every_command_has_json() -> None:
    """Scripts never have to parse text."""
    for name, command in commands({name: app.load(name) for name in app.commands}).items():
        assert "--json" in {option for parameter in command.params for option in parameter.opts}, name


# ── status ────────────────────────────────────────────────────────────────────────────────────────


def test_the_json_of_the_status(command: Command, store: JobStore) -> None:
    """States, gate, slots, backlog, pace, credits, failures and workers, of the queue or of a batch."""
    job_in_state(store, State.PENDING, voice(batch="b"))
    job_in_state(store, State.QUEUED)

    assert command("status", "--json").json() == {
        "namespace": "*",
        "batch": None,
        "states": {**{state.value: 0 for state in State}, "pending": 1, "queued": 1},
        "gate": {"open": True, "holds": []},
        "in_flight": 1,
        "in_flight_limit": 10,
        "backlog": [{"priority": "normal", "count": 1, "oldest_at": to_iso8601(NOW)}],
        "backlog_holds": [],
        "jobs_per_minute": 0.0,
        "seconds_left": None,
        "credits": 4,
        "balance": None,
        "balance_at": None,
        "credits_reserved": 0,
        "credits_queued": 19,
        "credits_today": 0,
        "credits_unexplained": 0,
        "failed_by_code": {},
        "rejected_messages": 0,
        "refused_jobs": [],
        "stopped_batches": [],
        "callbacks": {"pending": 0, "undelivered": 0},
        "archive": {"pending": 0, "failed": 0},
        "workers": 0,
    }
    of_batch = command("status", "--batch", "b", "--json").json()
    assert (of_batch["batch"], of_batch["states"]["pending"], of_batch["states"]["queued"]) == ("b", 1, 0)


def test_a_closed_gate_is_shown_with_its_reason(command: Command, store: JobStore) -> None:
    """As text and as JSON."""
    store.flow_control.add_hold("paused", "by [Ana]", NOW)

    assert command("status", "--json").json()["gate"] == {
        "open": False,
        "holds": [{"reason": "paused", "detail": "by [Ana]", "since": to_iso8601(NOW), "until": None, "trial": False}],
    }
    assert "closed: paused (by [Ana])" in command("status").out


def test_a_job_that_upstream_refuses_while_it_accepts_others_is_listed(command: Command, store: JobStore) -> None:
    """With the message; in its batch and in the whole queue."""
    poison, other = enqueue_jobs(store, voice(key="poison", batch="b"), voice(key="other"))
    for n, now in enumerate((NOW, NOW + 60)):
        store.admit(now)
        claim_admitted(store, poison, now)
        refuse_order(store, poison, now=now, words="HTTP 404: [persona] not found")
        if n == 0:
            store.admit(now)
            claim_admitted(store, other, now)
            accept_order(store, other, now)

    named = command("status", "--json").json()["refused_jobs"]
    assert named == [
        {
            "job_id": poison,
            "stage": "voice",
            "message": "HTTP 404: [persona] not found",
            "refusals": 2,
            "next_attempt_at": to_iso8601(NOW + 70),
        }
    ]
    assert command("status", "--batch", "b", "--json").json()["refused_jobs"] == named
    assert f"job {poison}, 2 times while others are accepted (HTTP 404: [persona] not found)" in command("status").out


def test_an_empty_queue_has_a_status(command: Command) -> None:
    """It says that there are no jobs yet, and that no worker is alive."""
    ended = command("status")

    assert ended.code == 0
    assert "no jobs yet" in ended.out
    assert "none alive" in ended.out


# ── jobs, job ─────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_as_json(command: Command, queue: VoiceQueue) -> None:
    """As `job` prints each; by batch, by state, and up to the limit."""
    queue.enqueue_many(numbered_voices(60, batch="b"))

    everything = command("jobs", "--batch", "b", "--limit", 100, "--json").json()

    assert everything == [job.as_dict() for job in queue.jobs(batch="b")]
    assert command("jobs", "--batch", "b", "--limit", 2, "--json").json() == everything[:2]
    assert len(command("jobs", "--json").json()) == 50
    assert command("jobs", "--state", "failed", "--json").json() == []


def test_a_line_of_the_list_is_not_broken_for_a_pipe(command: Command, store: JobStore) -> None:
    """`grep` finds a whole job on one line."""
    job = fail_job(
        store, job_in_state(store, State.PENDING, voice_with_song(name="A" * 60)), FailureCode.UPSTREAM_FAILED
    )

    [line] = [line for line in command("jobs").out.splitlines() if job.id in line]

    assert "A" * 60 in line
    assert "upstream_failed: no" in line


def test_the_json_of_a_job(command: Command, store: JobStore) -> None:
    """The record, and its timeline."""
    job = job_with_song(store)

    output = command("job", job.id, "--json").json()

    timeline = output.pop("timeline")
    assert output == {**job.as_dict(), "holds": [], "upstream_response": None, "callback": None}
    assert [step["state"] for step in timeline] == [
        "queued", "admitted", "charging", "pending", "admitted", "charging", "pending", "succeeded",
    ]  # fmt: skip
    assert timeline[3] == {
        "at": to_iso8601(NOW),
        "state": "pending",
        "stage": "voice",
        "reason": "",
        "attempt": 1,
        "task_id": f"task-voice-{job.id}",
    }


def test_what_holds_a_job_is_shown(command: Command, store: JobStore) -> None:
    """`job` and `status` name the limit; `status` also the number of jobs."""
    store.set_batch_limits("b", max_credits=3)
    job = job_in_state(store, State.QUEUED, voice(batch="b"))

    sentence = "the credit limit of batch b is reached, until it is raised"
    assert f"held       {sentence}" in command("job", job.id).out
    assert f"held       1 job: {sentence}" in command("status").out
    [hold] = command("job", job.id, "--json").json()["holds"]
    assert command("status", "--json").json()["backlog_holds"] == [{**hold, "jobs": 1}]


def test_a_job_is_shown_with_its_charges_and_songs(command: Command, store: JobStore) -> None:
    """Each charge with its outcome, each song with an unbroken link."""
    job = job_with_song(store, name="Ana", batch="b")

    output = command("job", job.id).out

    for part in ("Ana", "b", URL, "p-1 ana", "First, take  62 s  https://cdn.example/1.mp3", "c-2", "19"):
        assert part in output
    assert "charge 1: voice at" in output
    assert "charge 2: music at" in output
    assert output.count("then pending") == 2


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["job", "nosuchjob"], "no job 'nosuchjob'"),
        (["job", "\udcff"], "no job"),
        (["retry", "nosuchjob"], "no job 'nosuchjob'"),
        (["cancel", "nosuchjob"], "no job 'nosuchjob'"),
        (["jobs", "--batch", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["status", "--batch", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["status", "--batch", "\udcff"], "no batch"),
        (["watch", "--batch", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["export", "--batch", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["jobs", "--state", "nosuchstate"], "'queued'"),
        (["jobs", "--limit", "0"], "--limit"),
        (["nosuchcommand"], "nosuchcommand"),
    ],
)
def test_an_unknown_name_exits_with_2(command: Command, arguments: list[str], output: str) -> None:
    """The message names it, on standard error only."""
    ended = command(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert output in ended.err
    assert "Traceback" not in ended.err


def test_a_job_in_every_state_can_be_shown(command: Command, store: JobStore) -> None:
    """By every command that shows jobs."""
    jobs = [job_in_state(store, state, voice_with_song(batch="b")) for state in REACHABLE]
    for job in jobs:
        assert get_job(store, job.id).state in command("job", job.id).out
    assert all(command(name, "--batch", "b").code == 0 for name in ("status", "jobs"))
    assert len(command("jobs", "--json").json()) == len(jobs)


# ── retry, cancel ─────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_cancelled(command: Command, queue: VoiceQueue) -> None:
    """The output shows its new state; a second time exits with 1 and says why."""
    job = queue.enqueue(voice())

    assert command("cancel", job.id, "--json").json()["state"] == "cancelled"
    again = command("cancel", job.id)
    assert (again.code, again.out) == (1, "")
    assert "cancelled already" in again.err


def test_a_charge_that_was_confirmed_later_is_shown_with_its_task(command: Command, store: JobStore) -> None:
    """Its order was lost and resubmitted, and upstream reported the first one afterwards."""
    job = apply_transition(store, job_in_state(store, State.UNSURE), State.ADMITTED)
    claim_admitted(store, job.id)
    store.count_order(ChargedOrder(job.id, Stage.VOICE, 1, "lost-task"), NOW, reason="named")

    output = command("job", job.id).out

    assert "upstream has it as task lost-task" in output
    assert "charge 2" in output


def test_a_failed_job_is_retried(command: Command, store: JobStore) -> None:
    """The output shows its new state; a job that has not failed exits with 1 and says why."""
    job = job_in_state(store, State.FAILED)

    assert command("retry", job.id, "--yes", "--json").json()["state"] == "pending"
    again = command("retry", job.id)
    assert (again.code, again.out) == (1, "")
    assert "only a failed job" in again.err


@pytest.mark.parametrize("name", ["status", "jobs", "watch"])
def test_a_batch_is_given_by_its_option(command: Command, store: JobStore, name: str) -> None:
    """As for every other command; a positional argument is an error."""
    job_in_state(store, State.SUCCEEDED, voice_with_song(batch="b"))
    job_in_state(store, State.SUCCEEDED, voice_with_song(key="other"))

    assert command(name, "--batch", "b", "--json").out != command(name, "--json").out
    assert command(name, "b").code == 2


def test_jobs_are_searched_by_text(command: Command, store: JobStore) -> None:
    """By the same fields as on the page."""
    ids = enqueue_jobs(
        store,
        voice_with_song(key="a", metadata={"order": "4711"}),
        voice_with_song(key="b", name="4711"),
        voice_with_song(key="47112"),
    )

    jobs = command("jobs", "--search", "4711", "--json").json()

    assert {job["id"] for job in jobs} == set(ids[:2])
