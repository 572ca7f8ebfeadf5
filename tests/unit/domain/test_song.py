"""Songs: limits of each model version, and the mode that follows from the fields."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest

from tests.support.jobs import LYRICS, problems, voice, voice_with_song
from voicequeue import InvalidJobError, Song, UnknownModelWarning
from voicequeue.domain.song import KNOWN_MODELS, SHORT_MODELS
from voicequeue.domain.spec import parse_spec, parse_stored_spec

LONG_MODELS = sorted(KNOWN_MODELS - SHORT_MODELS)
LYRICS_LIMITS = [*((mv, 3_000) for mv in sorted(SHORT_MODELS)), *((mv, 5_000) for mv in LONG_MODELS)]
STYLE_LIMITS = [*((mv, 200) for mv in sorted(SHORT_MODELS)), *((mv, 1_000) for mv in LONG_MODELS)]

#: Limits that are the same for every model.
FIXED_LIMITS = [("title", 80), ("description", 400), ("negative_tags", 1_000), ("mv", 40)]


def song_problems(**fields: Any) -> dict[str, str]:
    """Return the problems of a song with these fields, by field."""
    return problems(song={"prompt": LYRICS, **fields})


@pytest.mark.parametrize(("mv", "limit"), LYRICS_LIMITS)
def test_lyrics_may_be_as_long_as_their_model_takes_and_not_one_character_longer(mv: str, limit: int) -> None:
    """The error names the field, the length, the model and the limit."""
    assert Song(mv=mv, prompt="x" * limit).prompt == "x" * limit

    errors = song_problems(mv=mv, prompt="x" * (limit + 1))

    assert errors == {"song.prompt": f"has {limit + 1:,} characters; {mv} takes at most {limit:,}"}


@pytest.mark.parametrize(("mv", "limit"), STYLE_LIMITS)
def test_a_style_may_be_as_long_as_its_model_takes_and_not_one_character_longer(mv: str, limit: int) -> None:
    """The error names the field, the length, the model and the limit."""
    assert Song(mv=mv, prompt=LYRICS, tags="x" * limit).tags == "x" * limit

    errors = song_problems(mv=mv, tags="x" * (limit + 1))

    assert errors == {"song.tags": f"has {limit + 1:,} characters; {mv} takes at most {limit:,}"}


@pytest.mark.parametrize(("field", "limit"), FIXED_LIMITS)
def test_a_text_that_is_too_long_names_its_field_and_the_limit(field: str, limit: int) -> None:
    """These limits are the same for every model."""
    fitting = "sonic-v5" if field == "mv" else "x" * limit
    Song.model_validate({"prompt": LYRICS, field: fitting})

    errors = song_problems(**{field: "sonic-" + "x" * (limit - 5) if field == "mv" else "x" * (limit + 1)})

    assert list(errors) == [f"song.{field}"]
    assert f"{limit:,}" in errors[f"song.{field}"]


def test_characters_are_counted_and_not_bytes() -> None:
    """Lyrics in any script get the whole limit."""
    assert Song(prompt="ю" * 5_000).prompt == "ю" * 5_000


def test_space_around_a_text_does_not_count() -> None:
    """The text is measured without surrounding space."""
    assert Song(prompt=LYRICS, title=f"  {'x' * 80}\n").title == "x" * 80


@pytest.mark.parametrize("field", ["style_weight", "weirdness_constraint", "audio_weight"])
def test_a_weight_lies_between_0_and_1(field: str) -> None:
    """Both ends are allowed; any other value names the field."""
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
    """The two values of upstream are allowed, and no other."""
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
    """A description alone is not custom mode, anything else is; an explicit value is kept."""
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
    """The message names the missing field."""
    errors = problems(song=fields)

    assert list(errors) == ["song"]
    assert missing in errors["song"]


def test_a_field_that_songs_do_not_have_is_refused_by_its_name() -> None:
    """A mistyped field name does not lead to a paid song without that field."""
    assert list(song_problems(lyrics=LYRICS)) == ["song.lyrics"]


def test_every_wrong_field_is_named_at_once() -> None:
    """All problems are reported together."""
    errors = song_problems(title="x" * 81, style_weight=2, vocal_gender="x")

    assert set(errors) == {"song.title", "song.style_weight", "song.vocal_gender"}


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the warnings to those of a new process."""
    monkeypatch.setattr("voicequeue.domain.song._warned", set())


@pytest.mark.usefixtures("unwarned")
def test_a_newer_sonic_model_is_a_warning() -> None:
    """Upstream adds models earlier than this release: the job is accepted, with the longer limits."""
    with pytest.warns(UnknownModelWarning, match="sonic-v6"):
        song = Song(mv="sonic-v6", prompt="x" * 5_000)

    assert song.mv == "sonic-v6"


@pytest.mark.usefixtures("unwarned")
def test_a_stored_job_with_a_newer_model_does_not_warn_again() -> None:
    """Reading a record, as workers do, does not warn."""
    with pytest.warns(UnknownModelWarning):
        job = voice(song={"mv": "sonic-v6", "prompt": LYRICS})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_stored_spec(job.canonical_content()) == job


def test_a_model_that_is_not_sonic_is_an_error() -> None:
    """The message lists the known models."""
    errors = song_problems(mv="chirp-v4")

    assert list(errors) == ["song.mv"]
    assert all(mv in errors["song.mv"] for mv in KNOWN_MODELS)


def test_lyrics_beside_a_wrong_model_are_still_measured() -> None:
    """Both errors are reported; the longest limit applies to the lyrics."""
    errors = song_problems(mv="chirp-v4", prompt="x" * 5_001)

    assert set(errors) == {"song.mv", "song.prompt"}
    assert "5,000" in errors["song.prompt"]


def test_a_song_cannot_be_changed() -> None:
    """Threads may share one."""
    with pytest.raises(ValueError, match="frozen"):
        voice_with_song().song.title = "another"  # type: ignore[misc, union-attr]


def test_a_song_that_is_no_object_is_refused() -> None:
    """The error names the field for any value."""
    for value in ("la la la", 7, [LYRICS]):
        with pytest.raises(InvalidJobError) as caught:
            parse_spec({"audio_url": "https://recordings.example/ana.wav", "song": value})
        assert caught.value.problems[0].field == "song"
