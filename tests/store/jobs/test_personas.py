"""The voices that were made: listed, taken again, and forgotten where upstream has lost them."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from tests.store.jobs.test_voices import ordered, voiced
from tests.store.life import NOW, one, put
from tests.support.jobs import sung, voice
from voicequeue import Persona, Stage, State, VoiceQueue
from voicequeue.storage.job_store import Store

OTHER = "https://recordings.example/bo.wav"


def made(store: Store, key: str, **fields: object) -> str:
    """A job whose voice is there."""
    [job_id] = put(store, voice(key=key, **fields))
    voiced(store, ordered(store, job_id), NOW + 60)
    return job_id


def test_every_voice_that_was_made_is_listed_the_latest_first(store: Store, queue: VoiceQueue) -> None:
    """With its persona, its recording and the job that paid for it."""
    a = made(store, "a")
    [b] = put(store, voice(key="b", audio_url=OTHER))
    voiced(store, ordered(store, b), NOW + 90)

    assert list(queue.personas()) == [
        Persona(f"persona-of-{b}", "Ana", OTHER, b, NOW + 90),
        Persona(f"persona-of-{a}", "Ana", one(store, a).spec.audio_url or "", a, NOW + 60),
    ]


def test_a_recording_has_one_persona_the_one_made_last(store: Store, queue: VoiceQueue) -> None:
    """Jobs that do not share make voices of their own; the next that does takes the newest."""
    made(store, "a")
    b = made(store, "b")

    assert [persona.job_id for persona in queue.personas()] == [b]


def test_a_persona_that_is_forgotten_is_taken_no_more(store: Store, queue: VoiceQueue) -> None:
    """By its URL, its content or its name; those that have it keep it."""
    a = made(store, "a", reuse=True, audio_sha256="a" * 64)
    [b] = put(store, sung(key="b", reuse=True, audio_sha256="a" * 64))

    assert queue.forget_persona(f"persona-of-{a}")
    assert not queue.forget_persona(f"persona-of-{a}")

    [c] = put(store, sung(key="c", reuse=True, audio_sha256="a" * 64))
    [d] = put(store, sung(key="d", reuse=True))
    assert list(queue.personas()) == []
    assert one(store, b).stage is Stage.MUSIC
    assert [(one(store, each).state, one(store, each).stage) for each in (c, d)] == [(State.QUEUED, Stage.VOICE)] * 2


def test_a_persona_is_forgotten_by_every_name_that_leads_to_it(store: Store, queue: VoiceQueue) -> None:
    """Also where its URL has a newer one since, and where a content was learnt after it was made."""
    [a] = put(store, sung(key="a", voice="ana", batch="spring"))
    voiced(store, ordered(store, a))
    put(store, sung(key="b", reuse=True, audio_sha256="a" * 64))
    made(store, "newer")

    assert queue.forget_persona(f"persona-of-{a}")

    by_name, by_content = put(
        store,
        sung(key="c", voice="ana", batch="spring"),
        sung(key="d", reuse=True, audio_sha256="a" * 64, audio_url=OTHER),
    )
    assert [one(store, each).stage for each in (by_name, by_content)] == [Stage.VOICE] * 2


def test_a_waiting_job_says_whose_voice_it_waits_for(store: Store, queue: VoiceQueue) -> None:
    """An honest answer to "where is my voice?"."""
    a, b = put(store, sung(key="a", reuse=True), sung(key="b", reuse=True))

    assert queue.waits_for(queue.get(b)) == a
    assert queue.waits_for(queue.get(a)) is None


def test_a_queue_that_reuses_makes_jobs_share_that_do_not_say(valkey_url: str, prefix: str) -> None:
    """And no job has to."""
    with VoiceQueue(valkey_url, prefix=prefix, reuse=True) as queue:
        states = [queue.enqueue(sung(key=key)).state for key in ("a", "b")]

    assert states == [State.QUEUED, State.WAITING]


def test_the_command_lists_voices_and_forgets_them(store: Store, command: Command) -> None:
    """For people, for scripts, and an error for one that is not there."""
    assert "no voice was created yet" in command("personas").out
    a = made(store, "a")

    assert f"persona-of-{a}" in command("personas").out
    [listed] = command("personas", "--json").json()
    assert listed["persona_id"] == f"persona-of-{a}"
    assert (listed["voice_name"], listed["job"]) == ("Ana", a)
    assert command("personas", "--forget", f"persona-of-{a}").code == 0
    assert command("personas", "--forget", f"persona-of-{a}").code == 1


def test_the_command_shows_whose_voice_a_job_waits_for(command: Command) -> None:
    """Enqueued with --reuse, or with the setting, or with a voice's name."""
    first = command("enqueue", "--audio-url", OTHER, "--key", "1", "--reuse", "--json").json()["id"]
    second = command("enqueue", "--audio-url", OTHER, "--key", "2", "--reuse", "--json").json()

    assert second["state"] == "waiting"
    assert f"the voice that job {first} creates" in command("job", second["id"]).out


def test_the_setting_of_the_environment_holds_for_the_command(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that it cannot be names itself."""
    monkeypatch.setenv("VOICEQUEUE_REUSE", "true")
    states = [command("enqueue", "--audio-url", OTHER, "--key", key, "--json").json()["state"] for key in "ab"]
    assert states == ["queued", "waiting"]

    monkeypatch.setenv("VOICEQUEUE_REUSE", "perhaps")
    bad = command("status")
    assert bad.code == 2
    assert "VOICEQUEUE_REUSE: must be true or false" in bad.err
