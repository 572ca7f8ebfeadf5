"""The command: what became of the jobs, for people and for scripts."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.jobs import LYRICS, URL, numbered, sung, voice
from tests.store.conftest import Command
from tests.store.life import NOW, REACHABLE, accepted, brought_to, charging, failed, make, one
from voicequeue import Clip, Code, Failure, Job, Stage, State, VoiceQueue, records
from voicequeue.cli import app
from voicequeue.job import iso
from voicequeue.store import Store

CLIPS = (
    Clip("c-1", "succeeded", "First, take", "https://cdn.example/1.mp3", "https://cdn.example/1.jpg", 61.5),
    Clip("c-2", "succeeded", None, "https://cdn.example/2.mp3", None, None),
)

#: What a caller, or upstream, might write to take over a terminal, or to look like something else.
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b31m\u202e\u2066\r\n[bold]bold[/bold] [/] [link=x]:fire: \\"


def song_of(store: Store, **fields: Any) -> Job:
    """A job with two clips, both stages paid."""
    made = make(
        store,
        brought_to(store, State.PENDING, sung(**fields)),
        State.ADMITTED,
        to_stage=Stage.MUSIC,
        fields={"persona_id": "p-1", "voice_name": "ana"},
    )
    charging(store, made.id)
    clips = records.clips_text(CLIPS)
    return make(
        store, accepted(store, made.id), State.SUCCEEDED, NOW + 60, fields={"clips": clips, "settled": str(NOW + 60)}
    )


# ── --json everywhere ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_speaks_json(name: str) -> None:
    """Scripts never have to read what is meant for people."""
    found = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]

    assert "--json" in {option for parameter in found.params for option in parameter.opts}


# ── status ────────────────────────────────────────────────────────────────────────────────────────


def test_the_status_has_a_shape_that_scripts_may_rely_on(command: Command, store: Store) -> None:
    """States, gate, slots, credits and workers, of the whole queue or of a batch."""
    brought_to(store, State.PENDING, voice(batch="b"))
    brought_to(store, State.QUEUED)

    assert command("status", "--json").json() == {
        "batch": None,
        "states": {**{state.value: 0 for state in State}, "pending": 1, "queued": 1},
        "gate": {"open": True, "reason": None, "detail": None, "since": None, "until": None},
        "in_flight": 1,
        "credits": 4,
        "workers": 0,
    }
    of_batch = command("status", "b", "--json").json()
    assert (of_batch["batch"], of_batch["states"]["pending"], of_batch["states"]["queued"]) == ("b", 1, 0)


def test_a_closed_gate_is_told_with_its_reason(command: Command, store: Store) -> None:
    """Why nothing goes on is the first thing that an operator needs to know."""
    store.close_gate("paused", "by [Ana]", NOW)

    assert command("status", "--json").json()["gate"] == {
        "open": False,
        "reason": "paused",
        "detail": "by [Ana]",
        "since": iso(NOW),
        "until": None,
    }
    assert "closed: paused (by [Ana])" in command("status").out


def test_an_empty_queue_has_a_status(command: Command) -> None:
    """It says that there is nothing yet, and that no worker is alive."""
    ended = command("status")

    assert ended.code == 0
    assert "nothing yet" in ended.out
    assert "none alive" in ended.out


# ── jobs, job ─────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_as_json(command: Command, queue: VoiceQueue) -> None:
    """As each would be told alone; by batch, by state, and no more than asked for."""
    queue.enqueue_many(numbered(60, batch="b"))

    everything = command("jobs", "b", "--limit", 100, "--json").json()

    assert everything == [job.as_dict() for job in queue.jobs(batch="b")]
    assert command("jobs", "b", "--limit", 2, "--json").json() == everything[:2]
    assert len(command("jobs", "--json").json()) == 50
    assert command("jobs", "--state", "failed", "--json").json() == []


def test_a_line_of_the_list_is_not_broken_for_a_pipe(command: Command, store: Store) -> None:
    """`grep` finds the whole of a job in one line."""
    job = failed(store, brought_to(store, State.PENDING, sung(name="A" * 60)), Code.UPSTREAM_FAILED)

    [line] = [line for line in command("jobs").out.splitlines() if job.id in line]

    assert "A" * 60 in line
    assert "upstream_failed: no" in line


def test_a_job_has_a_shape_that_scripts_may_rely_on(command: Command, store: Store) -> None:
    """The record, and its timeline."""
    job = song_of(store)

    told = command("job", job.id, "--json").json()

    timeline = told.pop("timeline")
    assert told == job.as_dict()
    assert [step["state"] for step in timeline] == [
        "queued", "admitted", "charging", "pending", "admitted", "charging", "pending", "succeeded",
    ]  # fmt: skip
    assert timeline[3] == {
        "at": iso(NOW),
        "state": "pending",
        "stage": "voice",
        "reason": "",
        "attempt": 1,
        "task_id": f"task-voice-{job.id}",
    }


def test_a_job_is_told_to_a_person_with_its_charges_and_songs(command: Command, store: Store) -> None:
    """Each charge with what came of it; each song with a link that is not broken."""
    job = song_of(store, name="Ana", batch="b")

    told = command("job", job.id).out

    for part in ("Ana", "b", URL, "p-1 ana", "First, take  62 s  https://cdn.example/1.mp3", "c-2", "19"):
        assert part in told
    assert "charge 1: voice at" in told
    assert "charge 2: music at" in told
    assert told.count("then pending") == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["job", "nosuchjob"], "no job 'nosuchjob'"),
        (["job", "\udcff"], "no job"),
        (["retry", "nosuchjob"], "no job 'nosuchjob'"),
        (["cancel", "nosuchjob"], "no job 'nosuchjob'"),
        (["jobs", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["status", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["status", "\udcff"], "no batch"),
        (["watch", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["export", "--batch", "nosuchbatch"], "no batch 'nosuchbatch'"),
        (["jobs", "--state", "nosuchstate"], "'queued'"),
        (["jobs", "--limit", "0"], "--limit"),
        (["nosuchcommand"], "nosuchcommand"),
    ],
)
def test_a_question_about_nothing_exits_with_2(command: Command, arguments: list[str], told: str) -> None:
    """The text says what nobody knows, on standard error alone."""
    ended = command(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert "Traceback" not in ended.err


# ── retry, cancel ─────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_cancelled(command: Command, queue: VoiceQueue) -> None:
    """It is shown as it stands then; a second time exits with 1 and says why."""
    job = queue.enqueue(voice())

    assert command("cancel", job.id, "--json").json()["state"] == "cancelled"
    again = command("cancel", job.id)
    assert (again.code, again.out) == (1, "")
    assert "cancelled already" in again.err


def test_a_failed_job_is_retried(command: Command, store: Store) -> None:
    """It is shown as it stands then; a job that has not failed exits with 1 and says why."""
    job = brought_to(store, State.FAILED)

    assert command("retry", job.id, "--json").json()["state"] == "queued"
    again = command("retry", job.id)
    assert (again.code, again.out) == (1, "")
    assert "only a failed job" in again.err


# ── watch ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("state", "code"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.CANCELLED, 1), (State.UNSURE, 1)]
)
def test_watching_a_settled_batch_ends_at_once(command: Command, store: Store, state: State, code: int) -> None:
    """With 0 if every job succeeded, else with 1."""
    brought_to(store, state, voice(batch="b"))
    brought_to(store, State.SUCCEEDED, voice(batch="b"))

    ended = command("watch", "b")

    assert ended.code == code
    assert state in ended.out


@pytest.mark.parametrize("state", [state for state in REACHABLE if state not in (State.UNSURE,)])
def test_watching_without_a_batch_watches_jobs_without_a_batch_too(
    command: Command, store: Store, state: State
) -> None:
    """A lone job is not passed over as if everything had succeeded."""
    job = brought_to(store, state, voice())

    ended = command("watch", "--timeout", 0, "--json")

    assert ended.code == (0 if state is State.SUCCEEDED else 1)
    [batch] = json.loads(ended.out.splitlines()[-1])
    assert (batch["batch"], batch["total"], batch["states"][state], batch["credits"]) == (
        "(no batch)",
        1,
        1,
        job.credits,
    )


def test_watching_follows_the_jobs_until_they_have_settled(command: Command, store: Store) -> None:
    """A line for every change; the last one has them all settled."""
    first, second = (brought_to(store, State.PENDING, voice(batch="b")) for _ in range(2))
    with ThreadPoolExecutor(1) as thread:

        def settle() -> None:
            make(store, first, State.SUCCEEDED)
            make(store, second, State.SUCCEEDED)

        settling = thread.submit(settle)
        ended = command("watch", "b", "--every", 0.05, "--json")
        settling.result()

    last = json.loads(ended.out.splitlines()[-1])
    assert ended.code == 0
    assert last == [
        {
            "batch": "b",
            "states": {**{state.value: 0 for state in State}, "succeeded": 2},
            "total": 2,
            "settled": True,
            "credits": 8,
        }
    ]


def test_watching_ends_after_its_timeout(command: Command, queue: VoiceQueue) -> None:
    """With 1, for not everything has succeeded."""
    queue.enqueue(voice(batch="b"))

    ended = command("watch", "b", "--timeout", 0.05, "--every", 0.05)

    assert (ended.code, ended.out) == (1, "b: 1 queued, 0 credits\n")


def test_watching_nothing_ends_at_once(command: Command) -> None:
    """There is nothing that did not succeed."""
    assert command("watch").code == 0


# ── export ────────────────────────────────────────────────────────────────────────────────────────


def test_an_export_for_people_has_one_row_for_each_job(command: Command, store: Store) -> None:
    """With what was asked for, what came of it, and both songs side by side."""
    job = song_of(store, batch="b", name="Ana", key="k", metadata={"row": "7"})
    pending = brought_to(store, State.PENDING, voice(batch="b"), now=NOW + 1)
    lost = failed(store, pending, Code.UPSTREAM_FAILED, NOW + 5)

    done, other = csv.DictReader(io.StringIO(command("export", "--batch", "b").out))

    assert json.loads(done.pop("song")) == {"mv": "sonic-v5", "custom_mode": True, "title": "A song", "prompt": LYRICS}
    assert done == {
        "id": job.id, "key": "k", "batch": "b", "name": "Ana", "priority": "normal", "state": "succeeded",
        "stage": "music", "audio_url": URL, "persona_id": "p-1", "voice_name": "ana",
        "song_1_url": "https://cdn.example/1.mp3", "song_1_title": "First, take", "song_1_duration": "61.5",
        "song_2_url": "https://cdn.example/2.mp3", "song_2_title": "", "song_2_duration": "",
        "failure_code": "", "failure_stage": "", "failure_message": "", "credits": "19",
        "created_at": iso(NOW), "settled_at": iso(NOW + 60), "metadata": '{"row": "7"}',
    }  # fmt: skip
    assert (other["id"], other["failure_code"], other["failure_stage"], other["failure_message"], other["song"]) == (
        lost.id,
        "upstream_failed",
        "voice",
        "no",
        "",
    )


@pytest.mark.parametrize("how", [["--format", "jsonl"], ["--json"]])
def test_an_export_for_programs_has_one_line_for_each_job(command: Command, store: Store, how: list[str]) -> None:
    """As `job` would tell it, and the song that was asked for."""
    jobs = [song_of(store, batch="b"), brought_to(store, State.QUEUED, voice(batch="b"), now=NOW + 1)]

    lines = [json.loads(line) for line in command("export", "--batch", "b", *how).out.splitlines()]

    assert lines == [
        {**jobs[0].as_dict(), "song": {"mv": "sonic-v5", "custom_mode": True, "title": "A song", "prompt": LYRICS}},
        {**jobs[1].as_dict(), "song": None},
    ]


def test_an_export_can_be_written_to_a_file(command: Command, store: Store, at_home: Path) -> None:
    """The same bytes as on standard output, which stays empty."""
    song_of(store, name="Åse")
    on_screen = command("export").out

    ended = command("export", "--output", at_home / "jobs.csv")

    assert (ended.code, ended.out) == (0, "")
    assert (at_home / "jobs.csv").read_bytes().decode() == on_screen


def test_an_export_of_nothing_has_its_header(command: Command) -> None:
    """A state without jobs is no error."""
    ended = command("export", "--state", "failed")

    assert ended.code == 0
    assert ended.out.startswith("id,key,batch,")
    assert len(ended.out.splitlines()) == 1
    assert command("export", "--state", "failed", "--format", "jsonl").out == ""


@pytest.mark.parametrize("arguments", [["--batch", "nosuchbatch", "-o", "jobs.csv"], ["-o", "nosuchfolder/jobs.csv"]])
def test_an_export_that_cannot_be_leaves_no_file(command: Command, at_home: Path, arguments: list[str]) -> None:
    """Exit code 2, without a trace of Python."""
    ended = command("export", *arguments)

    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert list(at_home.iterdir()) == []


# ── what others wrote ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def hostile(store: Store) -> Job:
    """A job whose every text was written to take over a terminal."""
    job = brought_to(store, State.PENDING, sung(name=HOSTILE, key=HOSTILE, metadata={HOSTILE: HOSTILE}, batch="b"))
    clip = Clip(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    failure = Failure(Code.UPSTREAM_FAILED, Stage.VOICE, HOSTILE)
    store.close_gate("cooldown", HOSTILE, NOW)
    return make(
        store,
        job,
        State.FAILED,
        reason=HOSTILE,
        fields={
            "persona_id": HOSTILE,
            "voice_name": HOSTILE,
            "clips": records.clips_text((clip,)),
            "failure": records.failure_text(failure),
        },
    )


COMMANDS = [["job", "ID"], ["jobs"], ["status"], ["watch", "b"], ["export"], ["cancel", "ID"], ["cancel", HOSTILE]]


@pytest.mark.parametrize("arguments", [*COMMANDS, *([*each, "--json"] for each in COMMANDS)], ids=" ".join)
def test_text_of_others_does_not_reach_the_terminal_as_commands(
    command: Command, hostile: Job, arguments: list[str]
) -> None:
    """No escape, no control character, no change of direction: neither in text nor in JSON."""
    ended = command(*(hostile.id if part == "ID" else part for part in arguments))

    shown = (ended.out + ended.err).replace("\r\n", "\n") if arguments[0] == "export" else ended.out + ended.err
    assert [letter for letter in shown if not letter.isprintable() and letter != "\n"] == []


@pytest.mark.parametrize("arguments", [["job", "ID"], ["jobs"]], ids=" ".join)
def test_text_of_others_is_shown_as_it_was_written(command: Command, hostile: Job, arguments: list[str]) -> None:
    """It is no markup, and names no emoji."""
    out = command(*(hostile.id if part == "ID" else part for part in arguments)).out

    assert "[bold]bold[/bold] [/] [link=x]:fire:" in out


def test_json_gives_the_text_of_others_back_exactly(command: Command, hostile: Job) -> None:
    """Escaped on its way, and whole again for whoever reads it."""
    told = command("job", hostile.id, "--json").json()

    assert told["name"] == HOSTILE
    assert told["metadata"] == {HOSTILE: HOSTILE}
    assert command("export", "--json").json()["failure"]["message"] == HOSTILE


def test_a_job_in_every_state_can_be_shown(command: Command, store: Store) -> None:
    """By every command that shows jobs."""
    jobs = [brought_to(store, state, sung(batch="b")) for state in REACHABLE]
    for job in jobs:
        assert one(store, job.id).state in command("job", job.id).out
    assert all(command(name, "b").code == 0 for name in ("status", "jobs"))
    assert len(command("jobs", "--json").json()) == len(jobs)
