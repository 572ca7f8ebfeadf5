"""The song: the limits of each model version, and which mode follows from its fields."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest

from tests.support.jobs import LYRICS, problems, sung, voice
from voicequeue import InvalidJob, Song, UnknownModelWarning
from voicequeue.domain.song import KNOWN_MODELS, SHORT_MODELS
from voicequeue.domain.spec import parse, stored

LONG_MODELS = sorted(KNOWN_MODELS - SHORT_MODELS)
LYRICS_LIMITS = [*((mv, 3_000) for mv in sorted(SHORT_MODELS)), *((mv, 5_000) for mv in LONG_MODELS)]
STYLE_LIMITS = [*((mv, 200) for mv in sorted(SHORT_MODELS)), *((mv, 1_000) for mv in LONG_MODELS)]

#: Limits that are the same for every model.
FIXED_LIMITS = [("title", 80), ("description", 400), ("negative_tags", 1_000), ("mv", 40)]


def song_problems(**fields: Any) -> dict[str, str]:
    """What is wrong with a song of these fields, by field."""
    return problems(song={"prompt": LYRICS, **fields})


@pytest.mark.parametrize(("mv", "limit"), LYRICS_LIMITS)
def test_lyrics_may_be_as_long_as_their_model_takes_and_not_one_character_longer(mv: str, limit: int) -> None:
    """Exactly at the limit is fine; one over names the field, the length, the model and the limit."""
    assert Song(mv=mv, prompt="x" * limit).prompt == "x" * limit

    found = song_problems(mv=mv, prompt="x" * (limit + 1))

    assert found == {"song.prompt": f"has {limit + 1:,} characters; {mv} takes at most {limit:,}"}


@pytest.mark.parametrize(("mv", "limit"), STYLE_LIMITS)
def test_a_style_may_be_as_long_as_its_model_takes_and_not_one_character_longer(mv: str, limit: int) -> None:
    """Exactly at the limit is fine; one over names the field, the length, the model and the limit."""
    assert Song(mv=mv, prompt=LYRICS, tags="x" * limit).tags == "x" * limit

    found = song_problems(mv=mv, tags="x" * (limit + 1))

    assert found == {"song.tags": f"has {limit + 1:,} characters; {mv} takes at most {limit:,}"}


@pytest.mark.parametrize(("field", "limit"), FIXED_LIMITS)
def test_a_text_that_is_too_long_names_its_field_and_the_limit(field: str, limit: int) -> None:
    """Limits that no model changes: at the limit is fine, one over is not."""
    fitting = "sonic-v5" if field == "mv" else "x" * limit
    Song.model_validate({"prompt": LYRICS, field: fitting})

    found = song_problems(**{field: "sonic-" + "x" * (limit - 5) if field == "mv" else "x" * (limit + 1)})

    assert list(found) == [f"song.{field}"]
    assert str(limit) in found[f"song.{field}"]


def test_characters_are_counted_and_not_bytes() -> None:
    """Lyrics in any script get the whole limit."""
    assert Song(prompt="ю" * 5_000).prompt == "ю" * 5_000


def test_space_around_a_text_does_not_count() -> None:
    """What a limit measures is the text without the space around it."""
    assert Song(prompt=LYRICS, title=f"  {'x' * 80}\n").title == "x" * 80


@pytest.mark.parametrize("field", ["style_weight", "weirdness_constraint", "audio_weight"])
def test_a_weight_lies_between_0_and_1(field: str) -> None:
    """Both ends belong to it; a number beyond, or none at all, names the field."""
    for fitting in (0, 0.5, 1, "0.25"):
        Song.model_validate({"prompt": LYRICS, field: fitting})
    for wrong in (-0.01, 1.01, math.nan, math.inf, "loud"):
        assert list(song_problems(**{field: wrong})) == [f"song.{field}"]


@pytest.mark.parametrize("mv", sorted(SHORT_MODELS))
def test_an_older_model_takes_no_vocal_gender(mv: str) -> None:
    """The message names the field and the model."""
    assert song_problems(mv=mv, vocal_gender="f") == {"song.vocal_gender": f"needs sonic-v4-5 or later, not {mv}"}


@pytest.mark.parametrize("mv", LONG_MODELS)
def test_a_newer_model_takes_a_vocal_gender(mv: str) -> None:
    """Either of the two that upstream knows, and no third."""
    assert Song(mv=mv, prompt=LYRICS, vocal_gender="m").vocal_gender == "m"
    assert list(song_problems(mv=mv, vocal_gender="x")) == ["song.vocal_gender"]


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({"prompt": LYRICS}, True),
        ({"description": "a sea shanty"}, False),
        ({"prompt": LYRICS, "description": "a sea shanty"}, True),
        ({"prompt": "  ", "description": "a sea shanty"}, False),
        ({"make_instrumental": True}, True),
        ({"auto_lyrics": True}, True),
        ({"description": "a sea shanty", "make_instrumental": True}, False),
        ({"prompt": LYRICS, "description": " "}, True),
        ({"custom_mode": None, "prompt": LYRICS}, True),
        ({"custom_mode": "false", "description": "a sea shanty"}, False),
        ({"custom_mode": False, "prompt": LYRICS, "description": "a sea shanty"}, False),
    ],
)
def test_the_mode_follows_from_the_fields_unless_it_is_given(fields: dict[str, Any], mode: bool) -> None:
    """A description alone is no custom mode, everything else is; what is given stays."""
    assert Song.model_validate(fields).custom_mode is mode


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, "prompt is required in custom mode"),
        ({"prompt": " \n "}, "prompt is required in custom mode"),
        ({"custom_mode": True, "description": "a sea shanty"}, "prompt is required in custom mode"),
        ({"make_instrumental": False}, "prompt is required in custom mode"),
        ({"custom_mode": False, "prompt": LYRICS}, "description is required when custom_mode is false"),
    ],
)
def test_a_song_with_nothing_to_sing_is_refused(fields: dict[str, Any], missing: str) -> None:
    """The message says which field would mend it."""
    found = problems(song=fields)

    assert list(found) == ["song"]
    assert missing in found["song"]


def test_a_field_that_songs_do_not_have_is_refused_by_its_name() -> None:
    """A typing error in a field's name is not sent, and paid for, without that field."""
    assert list(song_problems(lyrics=LYRICS)) == ["song.lyrics"]


def test_every_wrong_field_is_named_at_once() -> None:
    """Nobody has to mend one field only to hear of the next."""
    found = song_problems(title="x" * 81, style_weight=2, vocal_gender="x")

    assert set(found) == {"song.title", "song.style_weight", "song.vocal_gender"}


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has seen no unknown model yet."""
    monkeypatch.setattr("voicequeue.domain.song._warned", set())


@pytest.mark.usefixtures("unwarned")
def test_a_newer_sonic_model_is_a_warning() -> None:
    """Upstream adds models before we know them: the job goes on, with the longer limits."""
    with pytest.warns(UnknownModelWarning, match="sonic-v6"):
        song = Song(mv="sonic-v6", prompt="x" * 5_000)

    assert song.mv == "sonic-v6"


@pytest.mark.usefixtures("unwarned")
def test_a_stored_job_with_a_newer_model_warns_nobody_again() -> None:
    """Whoever reads the record, a worker above all, had no part in it."""
    with pytest.warns(UnknownModelWarning):
        job = voice(song={"mv": "sonic-v6", "prompt": LYRICS})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stored(job.content()) == job


def test_a_model_that_is_not_sonic_is_an_error() -> None:
    """The message lists the models that are known."""
    found = song_problems(mv="chirp-v4")

    assert list(found) == ["song.mv"]
    assert all(mv in found["song.mv"] for mv in KNOWN_MODELS)


def test_lyrics_beside_a_wrong_model_are_still_measured() -> None:
    """Both errors are told, the lyrics by the longest limit that there is."""
    found = song_problems(mv="chirp-v4", prompt="x" * 5_001)

    assert set(found) == {"song.mv", "song.prompt"}
    assert "5,000" in found["song.prompt"]


def test_a_song_cannot_be_changed() -> None:
    """Two threads may share one."""
    with pytest.raises(ValueError, match="frozen"):
        sung().song.title = "another"  # type: ignore[misc, union-attr]


def test_a_song_that_is_no_object_is_refused() -> None:
    """Whatever was given there, the error names the field."""
    for given in ("la la la", 7, [LYRICS]):
        with pytest.raises(InvalidJob) as caught:
            parse({"audio_url": "https://recordings.example/ana.wav", "song": given})
        assert caught.value.problems[0].field == "song"
