"""Shared voices on real processes: the ledger shows each voice once, and every song."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.conftest import Build, System, settled
from tests.acceptance.jobs.test_pipeline import run
from tests.conftest import eventually
from voicequeue import Song, State, VoiceJob


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start two workers."""
    return build_shared(VOICEQUEUE_MAX_IN_FLIGHT="200")


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system for one test."""
    return shared_system.reset()


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
        receipt = queue.enqueue_many(
            VoiceJob(audio_url=recording(n % 10), voice=f"singer {n % 10}", song=song(n), batch="hundred", key=f"h{n}")
            for n in range(100)
        )
        eventually(lambda: settled(queue, "hundred"), within_s=60)
        finished = list(queue.jobs(batch="hundred"))

    assert charges(system) == (10, 100)
    assert (receipt.new, receipt.credits) == (100, 10 * 4 + 100 * 15)
    assert sum(job.credits for job in finished) == system.ledger()["credits_spent"] == receipt.credits
    assert all(job.state is State.SUCCEEDED and job.clips for job in finished)
    by_recording = {(job.spec.audio_url, job.persona_id) for job in finished}
    assert len(by_recording) == len({persona for _, persona in by_recording}) == 10


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
