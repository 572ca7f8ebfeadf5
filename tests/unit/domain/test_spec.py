"""Job specifications: validation, and the stability of content and id."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import LYRICS, SONG, URL, problems, voice, voice_with_song
from voicequeue import InvalidJobError, Priority, Stage, VoiceJob
from voicequeue.domain.song import KNOWN_MODELS
from voicequeue.domain.spec import METADATA_MAX_CHARS, METADATA_MAX_KEYS, parse_spec, parse_stored_spec
from voicequeue.errors import PROBLEMS_MAX

PERSONA = "0c9bd1e0-1111-2222-3333-444455556666"

GOOD_URLS = [
    "https://recordings.example/ana.wav",
    "http://recordings.example:8080/a%20b.mp3?token=x&y=[1]#t",
    "HTTPS://RECORDINGS.example/",
    "https://[2001:db8::1]/ana.wav",
    "https://user:secret@recordings.example/ana.wav",
    "https://aufnahmen.example/größe.wav",
]
BAD_URLS = [
    "recordings.example/ana.wav",
    "ftp://recordings.example/ana.wav",
    "file:///etc/passwd",
    "https://",
    "https:///ana.wav",
    "https://[2001:db8::1/ana.wav",
    "https://recordings.example:99999/ana.wav",
    "https://recordings.example:port/ana.wav",
    "https://recordings.example/a b.wav",
    "https://recordings.example/a\nb.wav",
    "https://recordings.example/\x00.wav",
    "https://recordings.example/\x1b[31m.wav",
    "javascript:alert(1)",
    "",
]


# ── a voice or a persona ──────────────────────────────────────────────────────────────────────────


def test_a_job_has_a_recording_or_a_persona_and_never_both() -> None:
    """Neither and both are rejected with the same message for the whole job."""
    both_or_neither = {"": "exactly one of audio_url and persona_id is required"}

    assert problems(persona_id=PERSONA, song={"prompt": LYRICS}) == both_or_neither
    assert problems(audio_url=None) == both_or_neither
    assert VoiceJob(persona_id=PERSONA, song=SONG).persona_id == PERSONA


def test_a_persona_without_a_song_is_refused() -> None:
    """There would be no stage to run."""
    assert "song is required" in problems(audio_url=None, persona_id=PERSONA)[""]


@pytest.mark.parametrize(
    ("job", "stages", "price"),
    [
        (voice(), (Stage.VOICE,), 4),
        (voice_with_song(), (Stage.VOICE, Stage.MUSIC), 19),
        (VoiceJob(persona_id=PERSONA, song=SONG), (Stage.MUSIC,), 15),
    ],
)
def test_a_job_knows_its_stages_and_what_they_cost(job: VoiceJob, stages: tuple[Stage, ...], price: int) -> None:
    """A voice costs 4 credits, a song 15; a persona skips the voice stage."""
    assert job.stages == stages
    assert job.credits == price


# ── fields ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", GOOD_URLS)
def test_an_http_url_is_taken_as_it_is(url: str) -> None:
    """Upstream receives the URL unchanged."""
    assert voice(audio_url=url, callback_url=url).audio_url == url


@pytest.mark.parametrize("url", ["s3://voices/anna.mp3", "s3://my.bucket-1/2026/an na/ü.wav", "s3://voices/a?b#c"])
def test_a_recording_may_be_an_object_on_s3(url: str) -> None:
    """Every interface accepts it, because only workers know whether they can sign it. A callback cannot go there."""
    assert voice(audio_url=url).audio_url == url
    assert "callback_url" in problems(callback_url=url)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://voices", "s3://voices/", "s3:///a", "s3://v/a/", "s3://A/a", "s3://voices/a\nb"]
)
def test_an_object_url_without_bucket_or_key_is_named(url: str) -> None:
    """The error shows the form."""
    assert problems(audio_url=url) == {
        "audio_url": "must be s3://bucket/key, with the name of a bucket and of a file in it"
    }


@pytest.mark.parametrize("field", ["audio_url", "callback_url"])
@pytest.mark.parametrize("url", BAD_URLS)
def test_anything_else_is_no_url(field: str, url: str) -> None:
    """The message names the field and the allowed form."""
    problem = problems(**{field: url})

    assert problem.keys() == {field}
    assert problem[field].startswith("must be an http:// or https:// URL")


def test_a_url_has_at_most_2048_characters() -> None:
    """A longer URL names the limit."""
    base = "https://recordings.example/"
    voice(audio_url=base.ljust(2_048, "x"))

    assert problems(audio_url=base.ljust(2_049, "x")) == {
        "audio_url": "has 2,049 characters; at most 2,048 are allowed"
    }


@pytest.mark.parametrize("name", ["a", "7", "spring-2026_v1.2", "x" * 100])
def test_a_batch_name_fits_urls_and_keys(name: str) -> None:
    """Letters, digits, dots, underscores and hyphens are allowed, up to 100."""
    assert voice(batch=name).batch == name


@pytest.mark.parametrize("name", ["", "x" * 101, "-a", ".a", "a b", "a/b", "a:jobs", "ä", "a\nb", "{a}", "[red]"])
def test_any_other_batch_name_is_refused(name: str) -> None:
    """The message names the field and the allowed form."""
    errors = problems(batch=name)

    assert list(errors) == ["batch"]
    assert "1 to 100" in errors["batch"]


@pytest.mark.parametrize("field", ["name", "key", "persona_id"])
def test_names_have_1_to_200_characters(field: str) -> None:
    """An empty or longer name names the field."""
    others = {"audio_url": None, "song": SONG} if field == "persona_id" else {}
    parse_spec({"audio_url": URL, **others, field: "x" * 200})

    assert "200" in problems(**others, **{field: "x" * 201})[field]
    assert field in problems(**others, **{field: "  "})


def test_metadata_has_at_most_50_entries() -> None:
    """One more entry names the field and the limit."""
    voice(metadata={str(n): "x" for n in range(METADATA_MAX_KEYS)})

    errors = problems(metadata={str(n): "x" for n in range(METADATA_MAX_KEYS + 1)})

    assert errors == {"metadata": "has 51 entries; at most 50 are allowed"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({f"unknown{number}": 1 for number in range(50_000)}, {"": "has 50,001 fields; at most 50 are allowed"}),
        ({"songs": [[]] * 100_000}, {"songs": "has 100,000 songs; at most 100 are allowed"}),
        ({"song": dict.fromkeys(map(str, range(51)))}, {"song": "has 51 fields; at most 50 are allowed"}),
        ({"songs": [{}, dict.fromkeys(map(str, range(51)))]}, {"songs.1": "has 51 fields; at most 50 are allowed"}),
    ],
)
def test_what_has_far_too_many_parts_is_refused_as_a_whole(fields: dict[str, Any], expected: dict[str, str]) -> None:
    """One problem is reported instead of one per part, which would fill the memory."""
    assert problems(**fields) == expected


def test_of_very_many_wrong_fields_the_first_ones_are_named() -> None:
    """The others are counted."""
    errors = problems(songs=[{f"unknown{number}": 1 for number in range(20)}] * 100)

    assert len(errors) == PROBLEMS_MAX + 1
    assert errors[""] == "1,900 more fields are wrong"


def test_metadata_has_at_most_8000_characters_names_included() -> None:
    """One more character names the field and the limit."""
    voice(metadata={"k": "x" * (METADATA_MAX_CHARS - 1)})

    errors = problems(metadata={"k": "x" * METADATA_MAX_CHARS})

    assert errors == {"metadata": "has 8,001 characters in all; at most 8,000 are allowed"}


def test_metadata_holds_text_only() -> None:
    """A number or a nested object names its entry: it would not be returned unchanged."""
    assert list(problems(metadata={"n": 5})) == ["metadata.n"]
    assert list(problems(metadata={"o": {"a": "b"}})) == ["metadata.o"]
    assert list(problems(metadata="artist=ana")) == ["metadata"]


def test_max_credits_must_cover_what_the_job_costs() -> None:
    """A lower value is rejected and names both numbers."""
    assert voice_with_song(max_credits=19).max_credits == 19

    errors = problems(song={"prompt": LYRICS}, max_credits=18)

    assert errors == {"max_credits": "18 is less than the 19 credits this costs"}


@pytest.mark.parametrize("wrong", [-1, "many", 4.5])
def test_max_credits_is_a_whole_number(wrong: object) -> None:
    """Any other value names the field."""
    assert list(problems(max_credits=wrong)) == ["max_credits"]


def test_a_priority_is_one_of_three() -> None:
    """High comes before normal and bulk; any other word names the field and the three."""
    assert sorted(Priority, key=lambda priority: priority.rank) == [Priority.HIGH, Priority.NORMAL, Priority.BULK]

    errors = problems(priority="urgent")

    assert all(f"'{priority}'" in errors["priority"] for priority in Priority)


def test_a_field_that_jobs_do_not_have_is_refused_by_its_name() -> None:
    """A mistyped field name is an error, not a job without that field."""
    assert list(problems(audio_ulr=URL)) == ["audio_ulr"]


def test_text_that_utf8_cannot_hold_is_refused() -> None:
    """An unpaired surrogate could be neither stored nor sent."""
    assert list(problems(name="\ud800")) == ["name"]


@pytest.mark.parametrize("value", [None, 7, "https://recordings.example/ana.wav", [URL]])
def test_what_is_no_object_is_no_job(value: object) -> None:
    """Any other value raises the same error."""
    with pytest.raises(InvalidJobError):
        parse_spec(value)


def test_a_job_cannot_be_changed() -> None:
    """Threads may share one."""
    with pytest.raises(ValueError, match="frozen"):
        voice().name = "another"  # type: ignore[misc]


def test_a_job_is_parsed_once() -> None:
    """A parsed job is returned unchanged."""
    job = voice_with_song()

    assert parse_spec(job) is job


# ── content and id ────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(codec="utf-8"), max_size=40)
names = texts.filter(lambda text: bool(text.strip()))
urls = st.from_regex(r"https?://[a-z]{1,9}\.example(:[1-9][0-9]{0,3})?/[!-~]{0,30}", fullmatch=True)
weights = st.floats(0, 1)
singing = st.one_of(
    st.fixed_dictionaries({"prompt": names}),
    st.fixed_dictionaries({"description": names}),
    st.fixed_dictionaries({"make_instrumental": st.just(True)}),
    st.fixed_dictionaries({"auto_lyrics": st.just(True), "custom_mode": st.just(True)}),
)
styling = st.fixed_dictionaries(
    {},
    optional={
        "mv": st.sampled_from(sorted(KNOWN_MODELS - {"sonic-v3-5", "sonic-v4"})),
        "title": texts,
        "tags": texts,
        "negative_tags": texts,
        "vocal_gender": st.sampled_from("fm"),
        "style_weight": weights,
        "weirdness_constraint": weights,
        "audio_weight": weights,
    },
)
songs = st.builds(lambda words, style: {**style, **words}, singing, styling)
sources = st.one_of(
    st.fixed_dictionaries({"audio_url": urls}, optional={"song": songs}),
    st.fixed_dictionaries({"persona_id": names, "song": songs}),
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "batch": st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True),
        "priority": st.sampled_from(Priority),
        "callback_url": urls,
        "metadata": st.dictionaries(texts, texts, max_size=4),
        "max_credits": st.integers(19, 10**6),
    },
)
fields_of_jobs = st.builds(lambda source, extra: {**source, **extra}, sources, extras)


@given(fields_of_jobs)
def test_a_job_comes_back_from_its_content_as_it_was(fields: dict[str, Any]) -> None:
    """Redis stores the whole job, and reading it changes nothing."""
    job = parse_spec(fields)

    assert parse_stored_spec(job.canonical_content()) == job
    assert parse_spec(json.loads(job.canonical_content())) == job
    assert parse_stored_spec(job.canonical_content()).canonical_content() == job.canonical_content()


@given(fields_of_jobs, st.randoms(use_true_random=False))
def test_equal_jobs_have_equal_content_whatever_the_order_of_their_fields(
    fields: dict[str, Any], chance: random.Random
) -> None:
    """The content decides whether a key names the same job."""
    assert parse_spec(_shuffled(fields, chance)).canonical_content() == parse_spec(fields).canonical_content()


def _shuffled(fields: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    pairs = [(name, _shuffled(value, chance) if isinstance(value, dict) else value) for name, value in fields.items()]
    chance.shuffle(pairs)
    return dict(pairs)


@given(fields_of_jobs, names.filter(lambda key: len(key.strip()) <= 200))
def test_a_key_names_one_id(fields: dict[str, Any], key: str) -> None:
    """The id follows from the key alone, in any process and with any content."""
    first, second = parse_spec({**fields, "key": key}), voice(key=key)

    assert first.job_id() == first.job_id() == second.job_id()
    assert re.fullmatch("[a-z2-7]{16}", first.job_id())


def test_ids_and_contents_are_what_earlier_releases_made() -> None:
    """Records outlive a release: the same key finds the same job after an upgrade."""
    job = voice_with_song(key="order-7", metadata={"b": "2", "a": "1"})

    assert job.job_id() == "f66nxdviltvr7rei"
    assert job.canonical_content() == (
        f'{{"audio_url":"{URL}","song":{{"mv":"sonic-v5","custom_mode":true,"title":"A song",'
        '"prompt":"[Verse]\\nla la la"},'
        '"key":"order-7","metadata":{"a":"1","b":"2"}}'
    )
    assert voice(batch="b").with_row_key().key == "row-x7btanwlk7ns4cbu"


def test_a_job_without_a_key_gets_a_new_id_each_time() -> None:
    """Two such jobs are different jobs."""
    assert len({voice().job_id() for _ in range(100)}) == 100


def test_keys_that_differ_have_ids_that_differ() -> None:
    """A thousand keys have a thousand ids."""
    assert len({voice(key=f"key-{n}").job_id() for n in range(1_000)}) == 1_000


def test_a_row_gets_a_key_of_its_batch_and_content() -> None:
    """The same row of the same batch is the same job; another batch or content is another job."""
    job = voice_with_song(batch="spring").with_row_key()

    assert job.key == voice_with_song(batch="spring").with_row_key().key
    assert job.key != voice_with_song(batch="summer").with_row_key().key
    assert job.key != voice_with_song(batch="spring", name="Ana").with_row_key().key


def test_the_place_in_a_file_is_no_part_of_the_content() -> None:
    """A row that moves, because others were added or deleted above it, is the same job."""
    here, there = (voice(batch="b", source_row=row).with_row_key() for row in (2, 3))

    assert here.key == there.key == voice(batch="b").with_row_key().key
    assert here.canonical_content() == there.canonical_content()


@pytest.mark.parametrize("row", [0, -1, 1.5, 2**53, "x"])
def test_rows_are_counted_from_one(row: object) -> None:
    """Other values are rejected, and the message names the field."""
    assert problems(source_row=row).keys() == {"source_row"}


def test_a_row_keeps_a_key_of_its_own() -> None:
    """A key of the caller is never replaced."""
    assert voice_with_song(key="mine").with_row_key().key == "mine"
