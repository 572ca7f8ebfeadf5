"""Shared voices on real processes: the ledger shows each voice once, and every song."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.conftest import Build, House, settled
from tests.acceptance.jobs.test_pipeline import run
from tests.conftest import eventually
from voicequeue import Song, State, VoiceJob


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """Two workers."""
    return build_for_all(VOICEQUEUE_MAX_IN_FLIGHT="200")


@pytest.fixture
def house(standing: House) -> House:
    """The house, for one test."""
    return standing.renew()


def charges(house: House) -> tuple[int, int]:
    """How many voices and songs were paid for."""
    kinds = [charge["kind"] for charge in house.ledger()["charges"]]
    return kinds.count("voice"), kinds.count("music")


def song(number: int) -> Song:
    """One of many."""
    return Song(title=f"Song {number}", prompt="[Verse]\nla la la")


def recording(name: object) -> str:
    """Its URL."""
    return f"https://recordings.example/{name}.wav"


def test_a_hundred_songs_on_ten_voices_are_ten_voices_and_a_hundred_songs(house: House) -> None:
    """Each song with its own voice's persona, each a job of its own."""
    with house.queue() as queue:
        receipt = queue.enqueue_many(
            VoiceJob(audio_url=recording(n % 10), voice=f"singer {n % 10}", song=song(n), batch="hundred", key=f"h{n}")
            for n in range(100)
        )
        eventually(lambda: settled(queue, "hundred"), within_s=60)
        done = list(queue.jobs(batch="hundred"))

    assert charges(house) == (10, 100)
    assert (receipt.new, receipt.credits) == (100, 10 * 4 + 100 * 15)
    assert sum(job.credits for job in done) == house.ledger()["credits_spent"] == receipt.credits
    assert all(job.state is State.SUCCEEDED and job.clips for job in done)
    by_recording = {(job.spec.audio_url, job.persona_id) for job in done}
    assert len(by_recording) == len({persona for _, persona in by_recording}) == 10


def test_the_same_recording_in_two_batches_at_the_same_moment_is_one_voice(house: House) -> None:
    """Two processes that enqueue at once, and a third that comes when it is made."""

    def enqueue(batch: str) -> int:
        arguments = ("--audio-url", recording("twice"), "--song", '{"prompt": "la la", "title": "La"}', "--reuse")
        return run(house, "enqueue", *arguments, "--batch", batch).returncode

    with house.queue() as queue, ThreadPoolExecutor(2) as threads:
        assert list(threads.map(enqueue, ("spring", "summer"))) == [0, 0]
        eventually(lambda: settled(queue, "spring") and settled(queue, "summer"), within_s=40)
        assert enqueue("autumn") == 0
        eventually(lambda: settled(queue, "autumn"), within_s=40)
        [persona] = [each for each in queue.personas() if each.audio_url == recording("twice")]
        personas = {job.persona_id for batch in ("spring", "summer", "autumn") for job in queue.jobs(batch=batch)}

    assert charges(house) == (1, 3)
    assert personas == {persona.persona_id}


def test_a_voice_that_fails_is_paid_once_and_fails_all_who_wait_for_it(house: House) -> None:
    """Retried, one of them makes it again, and all sing."""
    house.dial(voice_failure=1)
    with house.queue() as queue:
        queue.enqueue_many(
            VoiceJob(audio_url=recording("bad"), voice="bad", song=song(n), batch="bad", key=f"b{n}") for n in range(5)
        )
        eventually(lambda: queue.batch("bad").states[State.FAILED] == 5, within_s=40)
        assert charges(house) == (1, 0)

        house.dial(voice_failure=0)
        assert run(house, "retry", "--batch", "bad", "--yes").returncode == 0
        eventually(lambda: queue.batch("bad").states[State.SUCCEEDED] == 5, within_s=40)

    assert charges(house) == (2, 5)
