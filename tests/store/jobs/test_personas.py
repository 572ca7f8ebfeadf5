"""Created voices: listed, reused, and forgotten if upstream has lost them."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.store.jobs.test_voices import submitted, voiced
from tests.store.life import NOW, enqueue_jobs, get_job
from tests.support.jobs import voice, voice_with_song
from voicequeue import Persona, Stage, State, VoiceQueue
from voicequeue.storage.job_store import JobStore

OTHER = "https://recordings.example/bo.wav"


def job_with_voice(store: JobStore, key: str, **fields: object) -> str:
    """Return a job whose voice was created."""
    [job_id] = enqueue_jobs(store, voice(key=key, **fields))
    voiced(store, submitted(store, job_id), NOW + 60)
    return job_id


def test_created_voices_are_listed_newest_first(store: JobStore, queue: VoiceQueue) -> None:
    """Each has its persona, its recording and the job that paid for it."""
    a = job_with_voice(store, "a")
    [b] = enqueue_jobs(store, voice(key="b", audio_url=OTHER))
    voiced(store, submitted(store, b), NOW + 90)

    assert list(queue.personas()) == [
        Persona(f"persona-of-{b}", "Ana", OTHER, b, NOW + 90),
        Persona(f"persona-of-{a}", "Ana", get_job(store, a).spec.audio_url or "", a, NOW + 60),
    ]


def test_a_recording_has_the_newest_persona(store: JobStore, queue: VoiceQueue) -> None:
    """Jobs that do not share create voices of their own; the next sharing job uses the newest."""
    job_with_voice(store, "a")
    b = job_with_voice(store, "b")

    assert [persona.job_id for persona in queue.personas()] == [b]


def test_a_forgotten_persona_is_no_longer_used(store: JobStore, queue: VoiceQueue) -> None:
    """This holds by URL, content and name; jobs that have it keep it."""
    a = job_with_voice(store, "a", reuse=True, audio_sha256="a" * 64)
    [b] = enqueue_jobs(store, voice_with_song(key="b", reuse=True, audio_sha256="a" * 64))

    assert queue.forget_persona(f"persona-of-{a}")
    assert not queue.forget_persona(f"persona-of-{a}")

    [c] = enqueue_jobs(store, voice_with_song(key="c", reuse=True, audio_sha256="a" * 64))
    [d] = enqueue_jobs(store, voice_with_song(key="d", reuse=True))
    assert list(queue.personas()) == []
    assert get_job(store, b).stage is Stage.MUSIC
    jobs = [get_job(store, job_id) for job_id in (c, d)]
    assert [(job.state, job.stage) for job in jobs] == [(State.QUEUED, Stage.VOICE)] * 2


def test_a_persona_is_forgotten_under_every_name(store: JobStore, queue: VoiceQueue) -> None:
    """Also if its URL has a newer one, or a hash was computed after its creation."""
    [a] = enqueue_jobs(store, voice_with_song(key="a", voice="ana", batch="spring"))
    voiced(store, submitted(store, a))
    enqueue_jobs(store, voice_with_song(key="b", reuse=True, audio_sha256="a" * 64))
    job_with_voice(store, "newer")

    assert queue.forget_persona(f"persona-of-{a}")

    by_name, by_content = enqueue_jobs(
        store,
        voice_with_song(key="c", voice="ana", batch="spring"),
        voice_with_song(key="d", reuse=True, audio_sha256="a" * 64, audio_url=OTHER),
    )
    assert [get_job(store, job_id).stage for job_id in (by_name, by_content)] == [Stage.VOICE] * 2


def test_a_waiting_job_names_the_creator_of_its_voice(store: JobStore, queue: VoiceQueue) -> None:
    """The client returns the id of the job that creates the voice."""
    a, b = enqueue_jobs(store, voice_with_song(key="a", reuse=True), voice_with_song(key="b", reuse=True))

    assert queue.voice_creator(queue.get(b)) == a
    assert queue.voice_creator(queue.get(a)) is None


def test_a_queue_with_reuse_shares_voices_by_default(valkey_url: str, prefix: str) -> None:
    """A job can opt out."""
    with VoiceQueue(valkey_url, prefix=prefix, reuse=True) as queue:
        states = [queue.enqueue(voice_with_song(key=key)).state for key in ("a", "b")]

    assert states == [State.QUEUED, State.WAITING]


def test_the_command_lists_voices_and_forgets_them(store: JobStore, command: Command) -> None:
    """It prints text and JSON, and an error for an unknown persona."""
    assert "no voices yet" in command("personas").out
    a = job_with_voice(store, "a")

    assert f"persona-of-{a}" in command("personas").out
    [listed] = command("personas", "--json").json()
    assert listed["persona_id"] == f"persona-of-{a}"
    assert (listed["voice_name"], listed["job_id"]) == ("Ana", a)
    assert command("personas", "--forget", f"persona-of-{a}").code == 0
    assert command("personas", "--forget", f"persona-of-{a}").code == 1


def test_the_command_shows_the_creator_of_a_voice(command: Command) -> None:
    """The job was enqueued with --reuse, with the setting, or with the name of a voice."""
    first = command("enqueue", "--audio-url", OTHER, "--key", "1", "--reuse", "--json").json()["id"]
    second = command("enqueue", "--audio-url", OTHER, "--key", "2", "--reuse", "--json").json()

    assert second["state"] == "waiting"
    assert f"the voice that job {first} creates" in command("job", second["id"]).out


def test_the_command_uses_the_setting_of_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid value is named in the error."""
    monkeypatch.setenv("VOICEQUEUE_REUSE_VOICES", "true")
    states = [command("enqueue", "--audio-url", OTHER, "--key", key, "--json").json()["state"] for key in "ab"]
    assert states == ["queued", "waiting"]

    monkeypatch.setenv("VOICEQUEUE_REUSE_VOICES", "perhaps")
    bad = command("status")
    assert bad.code == 2
    assert "VOICEQUEUE_REUSE_VOICES: must be true or false" in bad.err
