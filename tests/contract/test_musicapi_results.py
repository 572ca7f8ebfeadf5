"""Accepted orders and task results of the simulator, in every shape."""

from __future__ import annotations

import pytest

from simulator.engine.dials import CLIPS_SHAPES, FAILURE_SHAPES, TASK_ID_PLACES, VOICE_SHAPES
from simulator.process import Simulator
from tasks.musicapi import (
    MusicApi,
    MusicReady,
    NotReady,
    TaskFailed,
    VoiceReady,
)
from tests.conftest import eventually
from tests.contract.conftest import order
from voicequeue.domain.stage import PRICES, Stage


@pytest.mark.parametrize("place", TASK_ID_PLACES)
@pytest.mark.parametrize("code", ["number", "string", "absent"])
@pytest.mark.parametrize("stage", list(Stage))
def test_an_order_gives_its_task_id_in_every_shape(
    simulator: Simulator, client: MusicApi, stage: Stage, code: str, place: str
) -> None:
    """The task id is that of the ledger, and the order is charged once."""
    simulator.set_dials(code_shape=code, task_id_place=place)

    task_id = order(client, stage)

    ledger = simulator.ledger()
    assert [charge["task_id"] for charge in ledger["charges"]] == [task_id]
    assert ledger["credits_spent"] == PRICES[stage]


@pytest.mark.parametrize("shape", ["not_ready_200", "not_ready_202", "clips_pending"])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_task_in_progress_is_not_ready_in_every_shape(
    simulator: Simulator, client: MusicApi, stage: Stage, shape: str
) -> None:
    """Upstream reports progress with 200, with 202, or with clips."""
    simulator.set_dials(pending_shape=shape, voice_s=60, music_s=60)

    assert isinstance(client.get_task(order(client, stage)), NotReady)


def test_a_finished_voice_is_its_persona(simulator: Simulator, client: MusicApi) -> None:
    """Every poll returns the same persona."""
    simulator.set_dials(voice_s=0)
    task_id = order(client)

    result = client.get_task(task_id)

    assert isinstance(result, VoiceReady)
    assert result.name == "Anna Maria"
    assert client.get_task(task_id) == result


@pytest.mark.parametrize("shape", CLIPS_SHAPES)
def test_a_finished_song_is_its_two_clips(simulator: Simulator, client: MusicApi, shape: str) -> None:
    """The clips have links, titles and durations, in a list or in an object."""
    simulator.set_dials(music_s=0, clips_shape=shape)

    result = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(result, MusicReady)
    assert [(clip.state, clip.title) for clip in result.clips] == [("succeeded", "La")] * 2
    assert all(clip.audio_url and clip.image_url and clip.duration for clip in result.clips)


def test_one_clip_of_two_is_a_finished_song(simulator: Simulator, client: MusicApi) -> None:
    """The other clip is reported as failed."""
    simulator.set_dials(music_s=0, clip_failure=1)

    result = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(result, MusicReady)
    assert [clip.state for clip in result.clips] == ["succeeded", "failed"]


def test_a_song_is_not_finished_before_its_links_are_there(simulator: Simulator, client: MusicApi) -> None:
    """This holds even if every clip has succeeded."""
    simulator.set_dials(music_s=0, link_late=1, link_delay_s=0.5)
    task_id = order(client, Stage.MUSIC)

    result = client.get_task(task_id)
    assert isinstance(result, NotReady)
    assert [(clip.state, clip.audio_url) for clip in result.clips] == [("succeeded", None)] * 2

    eventually(lambda: isinstance(client.get_task(task_id), MusicReady))


def test_a_clip_that_never_settles_keeps_its_song_from_being_finished(simulator: Simulator, client: MusicApi) -> None:
    """The finished clip is returned with its link."""
    simulator.set_dials(music_s=0, clip_stall=1)

    result = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(result, NotReady)
    assert sorted((clip.state, clip.is_finished) for clip in result.clips) == [("running", False), ("succeeded", True)]


@pytest.mark.parametrize("shape", FAILURE_SHAPES)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_failed_task_is_failed_in_every_shape(
    simulator: Simulator, client: MusicApi, stage: Stage, shape: str
) -> None:
    """The failure is reported in clips, in an object or as the whole body, with upstream's reason if it gives one."""
    simulator.set_dials(voice_s=0, music_s=0, voice_failure=1, music_failure=1, failure_shape=shape)

    result = client.get_task(order(client, stage))

    assert isinstance(result, TaskFailed)
    assert ("could not be" in result.message) == (shape != "clips")


def test_both_kinds_of_credits_are_counted(simulator: Simulator, client: MusicApi) -> None:
    """The balance is the sum of both minus what was spent."""
    simulator.set_dials(credits=100, extra_credits=30)
    order(client)

    assert client.get_credits() == 96


@pytest.mark.parametrize("shape", VOICE_SHAPES)
def test_a_finished_voice_is_read_in_every_shape(simulator: Simulator, client: MusicApi, shape: str) -> None:
    """A voice in progress or a failed one is not taken for finished although its persona is shown."""
    simulator.set_dials(voice_s=0, voice_shape=shape)
    assert isinstance(client.get_task(order(client)), VoiceReady)

    simulator.set_dials(voice_s=60, early_persona=True)
    assert isinstance(client.get_task(order(client)), NotReady)
    simulator.set_dials(voice_s=0, voice_failure=1)
    assert isinstance(client.get_task(order(client)), TaskFailed)


@pytest.mark.parametrize("word", ["failed", "cancelled", "moderated"])
def test_a_twin_that_ended_in_other_words_keeps_no_song_back(simulator: Simulator, client: MusicApi, word: str) -> None:
    """The result contains the clip that succeeded."""
    simulator.set_dials(music_s=0, clip_failure=1, clip_word=word)

    result = client.get_task(order(client, Stage.MUSIC))

    assert isinstance(result, MusicReady)
    assert sorted(clip.state for clip in result.clips) == sorted(["succeeded", word])
