"""Conversion between Redis records and jobs."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import SONG, voice, voice_with_song
from voicequeue import Clip, Failure, FailureCode, Job, Stage, State, TimelineEntry, VoiceJob
from voicequeue.domain import serialization
from voicequeue.domain.clip import NewerClip
from voicequeue.domain.job import Transition

QUEUED = {
    "spec": voice().canonical_content(),
    "state": "queued",
    "stage": "voice",
    "version": "1",
    "created": "1760000000.5",
}

texts = st.text(st.characters(codec="utf-8"))


def test_a_record_just_enqueued_is_a_job_with_nothing_done() -> None:
    """It has no attempt, no credits and no result, and was updated when it was created."""
    assert serialization.parse_job("abc", QUEUED) == Job(
        "abc", 1, State.QUEUED, Stage.VOICE, voice(), created_at=1_760_000_000.5, updated_at=1_760_000_000.5
    )


def test_a_record_with_everything_is_a_job_with_everything() -> None:
    """Every field of a record that passed both stages is read."""
    clips, failure = (
        (Clip("c-1", "succeeded", "T", None, None, 2.5),),
        Failure(FailureCode.DEADLINE, Stage.MUSIC, "late"),
    )
    record = {
        **QUEUED,
        "spec": voice_with_song().canonical_content(),
        "state": "failed",
        "stage": "music",
        "version": "12",
        "updated": "1760000009",
        "settled": "1760000008.25",
        "attempt": "3",
        "credits": "19",
        "voice.task": "t-1",
        "music.task": "t-2",
        "persona_id": "p-1",
        "voice_name": "ana",
        "clips": serialization.clips_text(clips),
        "failure": serialization.failure_text(failure),
        "rank": "1",
        "holder": "h",
        "source": "http:shop",
    }

    assert serialization.parse_job("abc", record) == Job(
        "abc",
        12,
        State.FAILED,
        Stage.MUSIC,
        voice_with_song(),
        created_at=1_760_000_000.5,
        updated_at=1_760_000_009.0,
        settled_at=1_760_000_008.25,
        attempt=3,
        credits=19,
        persona_id="p-1",
        voice_name="ana",
        clips=clips,
        failure=failure,
        task_ids={Stage.VOICE: "t-1", Stage.MUSIC: "t-2"},
        source="http:shop",
    )


def test_a_persona_that_was_given_is_the_jobs_persona() -> None:
    """Without a voice stage, no result sets the persona."""
    spec = VoiceJob(persona_id="p-9", song=SONG)

    assert (
        serialization.parse_job("abc", {**QUEUED, "spec": spec.canonical_content(), "stage": "music"}).persona_id
        == "p-9"
    )


clips = st.builds(
    Clip, texts, texts, title=texts, audio_url=texts, duration=st.floats(0, 1e6), lyrics=texts, mv=st.none() | texts
)


@given(st.lists(clips, max_size=3))
def test_clips_come_back_as_they_were(clips: list[Clip]) -> None:
    """Any text survives."""
    assert serialization.parse_clips(serialization.clips_text(tuple(clips))) == tuple(clips)


@given(st.builds(Failure, st.sampled_from(FailureCode), st.sampled_from(Stage), texts))
def test_a_failure_comes_back_as_it_was(failure: Failure) -> None:
    """Any message survives."""
    assert serialization.parse_failure(serialization.failure_text(failure)) == failure


def test_clips_of_other_releases_are_read_with_what_is_known_of_them() -> None:
    """Missing fields are None, and unknown fields are kept."""
    older = '[{"clip_id": "c", "state": "succeeded", "title": null, "audio_url": "https://cdn.example/1.mp3"}]'
    newer = '[{"clip_id": "c", "state": "succeeded", "tags": "calm", "of_next_year": 7}]'

    assert serialization.parse_clips(older) == (Clip("c", "succeeded", audio_url="https://cdn.example/1.mp3"),)
    assert serialization.parse_clips(newer) == (NewerClip("c", "succeeded", tags="calm", unknown={"of_next_year": 7}),)


def test_only_songs_that_are_there_are_to_be_archived() -> None:
    """Songs without a link are archived when they arrive."""

    def archive(*songs: Clip) -> object:
        fields = {"clips": serialization.clips_text(songs)}
        move = Transition("abc", 4, State.PENDING, Stage.MUSIC, State.SUCCEEDED, fields=fields)
        return serialization.transition_arguments(move, archive=True).get("archive")

    assert archive(Clip("c", "succeeded"), Clip("d", "running", audio_url="https://cdn.example/stream")) is None
    assert archive(Clip("c", "succeeded"), Clip("d", "succeeded", audio_url="https://cdn.example/1.mp3")) is True


def test_nothing_written_is_nothing_read() -> None:
    """A job without clips or failure has none."""
    assert serialization.parse_clips(None) == ()
    assert serialization.parse_failure(None) is None


def test_a_line_of_a_timeline_is_an_entry() -> None:
    """Both complete and minimal entries are read."""
    whole = {"at": "7.5", "state": "pending", "stage": "voice", "reason": "r", "attempt": 2, "task_id": "t"}
    least = {"at": "7.5", "state": "admitted", "stage": "music"}

    assert serialization.parse_timeline_entry(json.dumps(whole)) == TimelineEntry(
        7.5, State.PENDING, Stage.VOICE, "r", 2, "t"
    )
    assert serialization.parse_timeline_entry(json.dumps(least)) == TimelineEntry(7.5, State.ADMITTED, Stage.MUSIC)


def test_a_transition_has_no_nulls_for_lua() -> None:
    """Absent values are left out, removed fields are listed separately, and the task id is part of the timeline."""
    fields = {"voice.task": "t-1", "submitted_at": "7", "failure": None}
    move = Transition("abc", 4, State.CHARGING, Stage.VOICE, State.PENDING, due=9.0, fields=fields, credits=4)

    assert serialization.transition_arguments(move) == {
        "id": "abc",
        "version": 4,
        "from": ["charging", "voice"],
        "to": "pending",
        "stage": "voice",
        "credits": 4,
        "set": {"voice.task": "t-1", "submitted_at": "7"},
        "unset": ["failure"],
        "task_id": "t-1",
        "due": 9.0,
    }


def test_a_move_to_another_stage_names_the_new_one() -> None:
    """The new stage is the one of the record afterwards."""
    move = Transition(
        "abc", 5, State.PENDING, Stage.VOICE, State.ADMITTED, to_stage=Stage.MUSIC, due=9.0, reason="next"
    )

    assert serialization.transition_arguments(move)["stage"] == "music"
    assert serialization.transition_arguments(move)["reason"] == "next"


_ANY_TEXT = st.text(st.characters())
_ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _ANY_TEXT,
    lambda values: st.lists(values) | st.dictionaries(_ANY_TEXT, values),
)


@given(_ANY_VALUE)
def test_every_value_is_read_as_it_was_written(value: object) -> None:
    """That includes lone surrogates, which senders may write."""
    assert json.loads(serialization.json_text(value)) == value


def test_a_deeply_nested_value_is_written() -> None:
    """A newer release may keep such a field of a clip."""
    value: list[object] = []
    for _ in range(400):
        value = [value]

    assert json.loads(serialization.json_text(value)) == value
