"""The main path on real processes: voices are enqueued, personas and songs result."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from voicequeue import State

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start two workers with many slots that check the balance often."""
    return build_shared(VOICEQUEUE_MAX_IN_FLIGHT="200", VOICEQUEUE_CREDITS_EVERY_S="0.5")


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

    assert (first["new"], first["known"], first["credits"]) == (12, 0, 12 * 19)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert (second["new"], second["known"]) == (0, 12)
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
        eventually(lambda: queue.status().gate.closed_for("out_of_credits"))
        assert queue.batch("poor").states[State.FAILED] == 0
        assert system.ledger()["charges"] == []

        system.dial(credits=1000)
        eventually(lambda: settled(queue, "poor"), within_s=40)

    assert verified_states(system, 5, "poor")[State.SUCCEEDED] == 5
