"""Response bodies for tests of the MusicAPI client: arbitrary JSON, and clips."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tasks.musicapi import MusicReady, TaskResult

#: Values of Python's JSON parser beyond JSON itself: NaN, Infinity, huge numbers, unpaired surrogates.
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(st.characters())
)
WORDS = st.sampled_from(["failed", "error", "pending", "running", "succeeded", "complete", "not_ready", "\ud800"])
NAMES = (
    st.sampled_from(["code", "type", "data", "state", "status", "message", "error", "success", "id", "taskId"])
    | st.sampled_from(["task_id", "clips", "clip_id", "persona_id", "name", "duration", "credits", "extra_credits"])
    | st.sampled_from(["result", "songs", "audio_url", "audioUrl", "tags", "created_at", "task_ids"])
)
ANY_JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=6),
    max_leaves=12,
)


LINK = "https://cdn.example/1.mp3"


def clip(state: str | None, clip_id: str | None = "c1", **fields: object) -> dict[str, object]:
    """Return one clip as upstream describes it."""
    all_fields = {"clip_id": clip_id, "state": state, **fields}
    return {name: value for name, value in all_fields.items() if value is not None}


def sung(state: str | None = "succeeded", clip_id: str | None = "c1", **fields: object) -> dict[str, object]:
    """Return one clip with its link."""
    return clip(state, clip_id, audio_url=LINK, **fields)


def states(result: TaskResult | None) -> list[tuple[str, str]]:
    """Return the ids and states of the clips of a finished task."""
    assert isinstance(result, MusicReady)
    return [(song.clip_id, song.state) for song in result.clips]
