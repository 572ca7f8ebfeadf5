"""Task results in generated response bodies: every shape, spelling and state word."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.musicapi import MusicReady, NotReady, TaskFailed, VoiceReady
from tasks.musicapi.responses import task_result
from tests.unit.tasks.response_bodies import ANY_JSON, LINK
from voicequeue.domain import serialization
from voicequeue.domain.clip import Clip, Phase, merge_clips, normalize, phase_of
from voicequeue.domain.stage import Stage


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_task_result(body: object) -> None:
    """No body raises, and every result can be written to a record and read again."""
    match task_result(body):
        case MusicReady(clips):
            assert any(song.is_finished for song in clips)
            assert serialization.parse_clips(serialization.clips_text(clips)) == clips
            json.dumps([song.duration for song in clips], allow_nan=False)
            serialization.clips_text(clips).encode()
        case VoiceReady(persona_id, name):
            assert persona_id.encode()
            assert name is None or name.encode()
        case NotReady(clips):
            assert serialization.parse_clips(serialization.clips_text(clips)) == clips
            serialization.clips_text(clips).encode()
        case TaskFailed(message):
            assert message.encode()


# ── every shape ────────────────────────────────────────────────────────────────────────────────────

#: State words in the spellings that were seen.
DONE = st.sampled_from(["succeeded", "SUCCESS", "complete", "Completed", "done", "finished", "ok", "Active", "ready"])
FAILED = st.sampled_from(["failed", "error", "CANCELLED", "canceled", "timeout", "expired", "rejected", "aborted"])
ENDED = FAILED | st.sampled_from(["moderated", "blocked", "a word of next year"])
WORKING = st.sampled_from(["pending", "RUNNING", "in progress", "queued", "processing", "not_ready", "rendering"])


def camel(name: str) -> str:
    """Return `audio_url` as `audioUrl`."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


@st.composite
def spelled(draw: st.DrawFn, fields: dict[str, Any]) -> dict[str, Any]:
    """Return an object with other spellings and another order of its names."""
    spellings: list[Callable[[str], str]] = [str, camel, str.upper]
    spell = draw(st.sampled_from(spellings))
    names = draw(st.permutations(list(fields)))
    return {spell(name): fields[name] for name in names}


@st.composite
def enveloped(draw: st.DrawFn, inner: Any) -> Any:
    """Return a body in one of the envelopes, with a code or without; no object has a name in two spellings."""
    statuses: list[dict[str, Any]] = [{}, {"code": 200}, {"code": "200", "message": "success"}, {"success": True}]
    status = draw(st.sampled_from(statuses))
    places: list[Any] = [{"data": inner}, {"result": inner}, {"data": {"result": inner}}, {"data": {"data": inner}}]
    if isinstance(inner, dict):
        places.append(inner)
    body = merged(status, draw(st.sampled_from(places)))
    return draw(st.sampled_from([body, merged({"task_id": "t1"}, body), merged({"status": "SUCCESS"}, body)]))


def merged(outer: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of both; `inner` replaces those of the same name, also in another spelling."""
    names = {normalize(name) for name in inner}
    return {**{name: value for name, value in outer.items() if normalize(name) not in names}, **inner}


@st.composite
def songs(draw: st.DrawFn, states: list[str | None]) -> Any:
    """Return songs in these states as a list, in an object, or as a single one; finished ones have a link."""
    id_name = draw(st.sampled_from(["clip_id", "id"]))
    state_name = draw(st.sampled_from(["state", "status"]))
    clips: list[Any] = []
    for number, state in enumerate(states):
        fields = {id_name: f"c{number}", "title": "Song", **({} if state is None else {state_name: state})}
        links = {"audio_url": LINK} if state is None or state.lower() in _DONE else {}
        clips.append(draw(spelled({**fields, **links})))
    shapes: list[Any] = [clips, {"clips": clips}, {"songs": clips}]
    if len(clips) == 1:
        shapes += [*clips, {"clip": clips[0]}]
    return draw(st.sampled_from(shapes))


_DONE = {"succeeded", "success", "complete", "completed", "done", "finished", "ok", "active", "ready"}


@given(
    st.data(), st.lists(DONE, min_size=1, max_size=2), st.lists(ENDED, max_size=1), st.sampled_from([None, Stage.MUSIC])
)
def test_every_song_that_is_there_is_read(
    data: st.DataObject, done: list[str], over: list[str], stage: Stage | None
) -> None:
    """Each link is found in every shape, and a twin that ended otherwise does not prevent the result."""
    body = data.draw(enveloped(data.draw(songs([*done, *over]))))

    result = task_result(body, stage)

    assert isinstance(result, MusicReady)
    assert [song.audio_url for song in result.clips if song.is_finished] == [LINK] * len(done)
    assert len(result.clips) == len(done) + len(over)


@given(st.data(), DONE, WORKING)
def test_no_song_is_ready_before_its_twin(data: st.DataObject, done: str, working: str) -> None:
    """The available link is returned."""
    result = task_result(data.draw(enveloped(data.draw(songs([done, working])))), Stage.MUSIC)

    assert isinstance(result, NotReady)
    assert [song.audio_url for song in result.clips] == [LINK, None]


@given(st.data(), st.none() | DONE, st.sampled_from([None, Stage.VOICE]))
def test_every_persona_that_is_there_is_read(data: st.DataObject, state: str | None, stage: Stage | None) -> None:
    """The persona is found in every shape, as an object or in a list."""
    voice = data.draw(spelled({"persona_id": "p1", "name": "Anna", **({} if state is None else {"state": state})}))
    body = data.draw(enveloped(data.draw(st.sampled_from([voice, [voice]]))))

    assert task_result(body, stage) == VoiceReady("p1", "Anna")


@given(st.data(), FAILED | WORKING, st.booleans())
def test_a_state_comes_before_the_persona(data: st.DataObject, state: str, inside: bool) -> None:
    """A failed or unfinished voice is not used."""
    voice = {"persona_id": "p1", **({"state": state} if inside else {})}
    body = data.draw(enveloped(data.draw(spelled(voice))))
    body = body if inside else {**body, "status": state}

    assert isinstance(task_result(body, Stage.VOICE), NotReady | TaskFailed)


#: Fields of a layer that contradict a finished voice.
DENIALS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, status=FAILED | WORKING | st.sampled_from(["new", "created", "paused", "a word of next year"])),
    st.builds(dict, code=st.sampled_from([400, 403, 429, 500, "500", 503, 10001]), message=st.text(max_size=9)),
    st.builds(dict, success=st.sampled_from([False, "false"]), error=st.sampled_from(["no", "internal", {"code": 1}])),
)


@given(st.data(), DENIALS, st.none() | DONE, st.sampled_from(["outer", "middle", "inner"]))
def test_no_voice_is_ready_where_any_layer_denies_it(
    data: st.DataObject, denial: dict[str, Any], done: str | None, place: str
) -> None:
    """The other layers do not matter: no song is ordered from such a body."""
    voice: dict[str, Any] = {"persona_id": "p1", **({} if done is None else {"state": done})}
    inner = {**voice, **denial} if place == "inner" else voice
    middle = {"data": data.draw(spelled(inner)), **(denial if place == "middle" else {"status": "SUCCESS"})}
    body = {"result": middle, **(denial if place == "outer" else {"code": 200, "message": "success"})}

    assert isinstance(task_result(body, Stage.VOICE), NotReady | TaskFailed | None)


@given(st.text("abcdefghijklmnopqrstuvwxyz_ ", min_size=1))
def test_only_a_word_for_done_makes_a_voice_ready(word: str) -> None:
    """Any other word means progress or a failure."""
    is_done = phase_of(word) is Phase.DONE or not word.strip()

    assert isinstance(task_result({"persona_id": "p1", "state": word}, Stage.VOICE), VoiceReady) is is_done


@given(st.data(), FAILED, st.sampled_from(list(Stage)))
def test_every_failure_is_read_with_its_reason(data: st.DataObject, word: str, stage: Stage) -> None:
    """This holds for voices and songs."""
    name = data.draw(st.sampled_from(["error", "message", "error_message", "reason"]))
    task = {data.draw(st.sampled_from(["state", "status"])): word, name: "no clear speaker"}

    assert task_result(data.draw(enveloped(data.draw(spelled(task)))), stage) == TaskFailed("no clear speaker")


CLIPS = st.lists(
    st.builds(Clip, st.sampled_from("ab"), DONE | ENDED | WORKING, audio_url=st.none() | st.just(LINK)), max_size=3
)


@given(CLIPS, CLIPS)
def test_no_link_is_lost_between_two_answers(earlier: list[Clip], later: list[Clip]) -> None:
    """The later result does not matter."""
    both = merge_clips(merge_clips((), earlier), later)

    finished = {song.clip_id for song in merge_clips((), earlier) if song.is_finished}
    assert finished <= {song.clip_id for song in both if song.is_finished}
    assert merge_clips(both, both) == both
