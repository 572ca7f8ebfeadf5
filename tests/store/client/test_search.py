"""Searches by a text: what is found, in Redis and by the library in the same way."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.enqueue import enqueue_or_reject
from tests.store.life import NOW, enqueue_jobs
from tests.support.jobs import voice, voice_with_song
from voicequeue import Filter, InvalidJobError, Song, VoiceQueue
from voicequeue.domain.search_text import SearchText
from voicequeue.storage.job_store import JobStore

NAME = "Zoë O'Brien-Straße"


def search_ids(queue: VoiceQueue, text: str) -> list[str]:
    """Return the ids of the jobs that are found."""
    return [job.id for job in queue.search(Filter(text=text)).items]


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("zoë", True), ("ZOË", True), ("Zo", True), ("brien", True), ("STRASSE", True), ("strasse", True),
        ("stra", True), ("o'brien-s", True), (" zoë ", True), ("zoë o", True),
        (unicodedata.normalize("NFD", "zoë"), True), ("oë", False), ("rien", False), ("zoe", False),
        ('"zoë"', False), ('"ZOË o\'brien-STRASSE"', True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("of", ["name", "title"])
def test_a_name_is_found_by_the_beginning_of_its_words_without_case(
    queue: VoiceQueue, store: JobStore, of: str, text: str, is_found: bool
) -> None:
    """In quotation marks, only the whole name is."""
    named = {"name": NAME} if of == "name" else {"song": Song(title=NAME, prompt="[Verse]\nla")}
    ids = enqueue_jobs(store, voice(**named), voice_with_song(name="Lu", song=Song(title="La", prompt=f"oë {NAME}")))

    assert search_ids(queue, text) == (ids[:1] if is_found else [])


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("order-17/é", True), ("ORDER-17/É", True), ("order-17", False), ("17/é", False), ('"order-17/é"', True)],
)
@pytest.mark.parametrize("of", ["key", "metadata"])
def test_a_key_or_metadata_value_is_found_as_a_whole_without_case(
    queue: VoiceQueue, store: JobStore, of: str, text: str, is_found: bool
) -> None:
    """An order must not be mistaken for another one whose number begins with it."""
    ids = enqueue_jobs(store, voice(**({"key": "Order-17/é"} if of == "key" else {"metadata": {"a": "Order-17/é"}})))

    assert search_ids(queue, text) == (ids if is_found else [])


def test_a_job_is_found_by_its_id(queue: VoiceQueue, store: JobStore) -> None:
    """The id alone says nothing about where it was used, so users paste it into any field."""
    [job_id, _] = enqueue_jobs(store, voice(), voice())

    assert search_ids(queue, job_id.upper()) == [job_id]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(text: str) -> None:
    """A bulk change by an empty variable of a script would concern every job."""
    with pytest.raises(InvalidJobError, match="search: must not be empty"):
        Filter(text=text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.sampled_from("aAsSkKzéÉßẞſKİiıΣσςЖж '\"\\-1ﬁ"), min_size=1, max_size=6),
    text=st.text(st.sampled_from("aAsSkKzéÉßİiıΣσЖж '\"\\1ﬁ"), min_size=1, max_size=3),
)
@example(name="ẞa", text="SS")
@example(name="aς b", text="ΑΣ".lower())
def test_redis_finds_what_the_library_finds(queue: VoiceQueue, store: JobStore, name: str, text: str) -> None:
    """Lua knows no Unicode, so the letters that matter are passed to it."""
    job_name = f"x {name} y"
    [job_id] = enqueue_jobs(store, voice(name=job_name))
    try:
        search = SearchText.parse(text)
    except ValueError:
        return
    job = queue.get(job_id)

    arguments = Filter(text=text).script_arguments(store.scope)
    members = store.indexes.filter_page("lane:1:", None, 1_000, arguments).members

    assert not search.finds(job) or job_id in [member for member, _ in members]


def test_a_job_is_found_by_the_ids_of_its_messages(queue: VoiceQueue, store: JobStore) -> None:
    """Also by that of a message that was sent again with the same key, and of one without a key."""
    keyed = {"audio_url": "https://example.com/a.wav", "key": "k"}
    for message_id in ("first", "Second/2", "first"):
        job_id = enqueue_or_reject(store, [keyed], {}, message_id=message_id, now=NOW)
    keyless_id = enqueue_or_reject(store, [{**keyed, "key": None}], {}, message_id="third", now=NOW)

    assert search_ids(queue, "first") == search_ids(queue, "second/2") == [job_id]
    assert search_ids(queue, "third") == [keyless_id]
    assert queue.get(job_id).as_dict()["message_ids"] == ["first", "Second/2"]
    assert queue.get(keyless_id).message_ids == ("third",)


def test_a_job_of_the_previous_release_is_found_by_the_message_id_in_its_key(
    queue: VoiceQueue, store: JobStore
) -> None:
    """The previous release stored the message id there only."""
    [job_id] = enqueue_jobs(store, voice(key="message-6F1c"))

    assert search_ids(queue, "6f1C") == [job_id]
    assert queue.get(job_id).message_ids == ("6F1c",)


def test_a_job_keeps_its_first_and_its_latest_message_ids(queue: VoiceQueue, store: JobStore) -> None:
    """A message that is sent again and again must not grow the record without a limit."""
    job = {"audio_url": "https://example.com/a.wav", "key": "k"}
    for number in range(25):
        job_id = enqueue_or_reject(store, [job], {}, message_id=f"m{number}", now=NOW)

    assert queue.get(job_id).message_ids == ("m0", *(f"m{number}" for number in range(6, 25)))
