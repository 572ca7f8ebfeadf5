"""The main path on real processes: voices are enqueued, alone or shared, and personas and songs result."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from voicequeue import Song, State, VoiceJob

pytestmark = pytest.mark.essential

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start two workers with many slots that check the balance often."""
    return build_shared(VOICEQUEUE_MAX_IN_FLIGHT="200", VOICEQUEUE_BALANCE_INTERVAL_S="0.5")


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system for one test."""
    return shared_system.reset()


def run(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its users do."""
    command = [str(Path(sys.executable).parent / "voicequeue"), *arguments]
    env = {**os.environ, "REDIS_URL": system.redis_url}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_a_csv_of_voices_goes_in_and_personas_and_songs_come_out(system: System) -> None:
    """Ingest, watch and export do the whole job; a second ingest adds nothing."""
    sample = str(ROOT / "samples" / "voices.csv")

    first = json.loads(run(system, "ingest", sample, "--batch", "sample", "--json").stdout)
    watched = run(system, "watch", "--batch", "sample", "--interval", "0.1", "--timeout", "60")
    second = json.loads(run(system, "ingest", sample, "--batch", "sample", "--json").stdout)
    exported = run(system, "export", "--batch", "sample", "--format", "jsonl")

    assert (first["new"], first["existing"], first["credits"]) == (12, 0, 12 * 19)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert (second["new"], second["existing"]) == (0, 12)
    results = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [len(result["clips"]) for result in results] == [2] * 12
    assert {result["persona_id"] for result in results} == {
        charge["subject"] for charge in system.ledger()["charges"] if charge["kind"] == "music"
    }
    assert [result["song"]["title"] for result in results] == [clip["clips"][0]["title"] for clip in results]
    assert system.ledger()["credits_spent"] == 12 * 19
    verified_states(system, 12, "sample")


def test_the_csv_export_lists_every_voice_with_its_links(system: System) -> None:
    """The CSV export has one line per job, with the songs' links, names and lengths."""
    with system.queue() as queue:
        queue.enqueue_many(jobs(3, "people"))
        eventually(lambda: settled(queue, "people"), within_s=40)

    rows = list(csv.DictReader(run(system, "export", "--batch", "people").stdout.splitlines()))

    assert [row["state"] for row in rows] == ["succeeded"] * 3
    assert all(row["song_1_url"].startswith("http") and row["persona_id"] for row in rows)


def test_many_jobs_through_two_workers_are_each_paid_once(system: System) -> None:
    """The ledger shows one voice and one song per job, and the records agree."""
    with system.queue() as queue:
        queue.enqueue_many(jobs(200, "many"))
        eventually(lambda: settled(queue, "many"), within_s=60)

    states = verified_states(system, 200, "many")

    kinds = [charge["kind"] for charge in system.ledger()["charges"]]
    assert states[State.SUCCEEDED] == 200
    assert (kinds.count("voice"), kinds.count("music")) == (200, 200)


def test_without_credits_nothing_fails_and_jobs_continue_when_there_are_some(system: System) -> None:
    """Without credits the gate closes; jobs stay queued, and finish once the balance suffices."""
    system.dial(credits=0)
    with system.queue() as queue:
        queue.enqueue_many(jobs(5, "poor"))
        eventually(lambda: queue.status().gate.hold_for("out_of_credits"))
        assert queue.batch("poor").states[State.FAILED] == 0
        assert system.ledger()["charges"] == []

        system.dial(credits=1000)
        eventually(lambda: settled(queue, "poor"), within_s=40)

    assert verified_states(system, 5, "poor")[State.SUCCEEDED] == 5


# ── shared voices ─────────────────────────────────────────────────────────────────────────────────


def charges(system: System) -> tuple[int, int]:
    """Return how many voices and songs were charged."""
    kinds = [charge["kind"] for charge in system.ledger()["charges"]]
    return kinds.count("voice"), kinds.count("music")


def song(number: int) -> Song:
    """Return a song with this number."""
    return Song(title=f"Song {number}", prompt="[Verse]\nla la la")


def recording(name: object) -> str:
    """Return the URL of a recording."""
    return f"https://recordings.example/{name}.wav"


def test_a_hundred_songs_on_ten_voices_pay_for_each_voice_once(system: System) -> None:
    """Each song is a job of its own, with its own voice's persona."""
    with system.queue() as queue:
        summary = queue.enqueue_many(
            VoiceJob(audio_url=recording(n % 10), voice=f"singer {n % 10}", song=song(n), batch="hundred", key=f"h{n}")
            for n in range(100)
        )
        eventually(lambda: settled(queue, "hundred"), within_s=60)
        finished = list(queue.jobs(batch="hundred"))

    assert charges(system) == (10, 100)
    assert (summary.new, summary.credits) == (100, 10 * 4 + 100 * 15)
    assert sum(job.credits for job in finished) == system.ledger()["credits_spent"] == summary.credits
    assert all(job.state is State.SUCCEEDED and job.clips for job in finished)
    by_recording = {(job.spec.audio_url, job.persona_id) for job in finished}
    assert len(by_recording) == len({persona for _, persona in by_recording}) == 10


@pytest.mark.endurance
def test_two_batches_that_share_a_recording_at_once_pay_for_one_voice(system: System) -> None:
    """Two processes enqueue at once, and a third after the voice is made."""

    def enqueue(batch: str) -> int:
        arguments = ("--audio-url", recording("twice"), "--song", '{"prompt": "la la", "title": "La"}', "--reuse")
        return run(system, "enqueue", *arguments, "--batch", batch).returncode

    with system.queue() as queue, ThreadPoolExecutor(2) as threads:
        assert list(threads.map(enqueue, ("spring", "summer"))) == [0, 0]
        eventually(lambda: settled(queue, "spring") and settled(queue, "summer"), within_s=40)
        assert enqueue("autumn") == 0
        eventually(lambda: settled(queue, "autumn"), within_s=40)
        [shared] = [persona for persona in queue.personas() if persona.audio_url == recording("twice")]
        personas = {job.persona_id for batch in ("spring", "summer", "autumn") for job in queue.jobs(batch=batch)}

    assert charges(system) == (1, 3)
    assert personas == {shared.persona_id}


def test_a_failed_voice_is_paid_once_and_fails_all_jobs_that_wait_for_it(system: System) -> None:
    """After a retry, one of them makes it again, and all songs succeed."""
    system.dial(voice_failure=1)
    with system.queue() as queue:
        queue.enqueue_many(
            VoiceJob(audio_url=recording("bad"), voice="bad", song=song(n), batch="bad", key=f"b{n}") for n in range(5)
        )
        eventually(lambda: queue.batch("bad").states[State.FAILED] == 5, within_s=40)
        assert charges(system) == (1, 0)

        system.dial(voice_failure=0)
        assert system.run("retry", "--batch", "bad", "--yes").returncode == 0
        eventually(lambda: queue.batch("bad").states[State.SUCCEEDED] == 5, within_s=40)

    assert charges(system) == (2, 5)
