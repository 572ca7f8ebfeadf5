"""Invalid fields are reported in our words by every way to build a job, never in pydantic's."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import voicequeue
from tests.support.jobs import URL
from voicequeue import InvalidJobError, Song, VoiceJob, VoiceQueue, VoiceQueueError
from voicequeue.domain.spec import parse_spec, parse_stored_spec
from voicequeue.errors import JOB_FIELDS, SONG_FIELDS
from voicequeue.version import VERSION

#: Words of pydantic and of Python's types that a caller must not have to know.
FOREIGN = re.compile(r"Input|should|pydantic|validation error|type=|dictionary|\bstr\b|\bdict\b|instance of")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
BUILDERS: dict[str, Callable[..., Any]] = {
    "VoiceJob": lambda **fields: VoiceJob(**{"audio_url": URL, **fields}),
    "Song": lambda **fields: Song(**{"prompt": "la", **fields}),
    "a song of a job": lambda **fields: VoiceJob(audio_url=URL, song={"prompt": "la", **fields}),
    "a copy": lambda **fields: VoiceJob(audio_url=URL).model_copy(update=fields),
    "a validated mapping": lambda **fields: VoiceJob.model_validate({"audio_url": URL, **fields}),
    "a mapping": lambda **fields: parse_spec({"audio_url": URL, **fields}),
}


def error_of(build: Callable[..., Any], fields: dict[str, Any]) -> InvalidJobError | None:
    """Return the error of a build; None if it succeeds. Any other error is raised."""
    try:
        build(**fields)
    except InvalidJobError as error:
        return error
    return None


def test_a_copy_with_other_values_is_the_job_that_has_them() -> None:
    """It is not stored as a record that nothing can read."""
    job = VoiceJob(audio_url=URL, song=Song(prompt="la"), key="k")

    assert job.model_copy(update={"key": "k2"}) == VoiceJob(audio_url=URL, song=Song(prompt="la"), key="k2")
    assert job.model_copy(deep=True) == job
    with pytest.raises(InvalidJobError, match="batch: must be 1 to 100 characters"):
        job.model_copy(update={"batch": "no batch"})
    with pytest.raises(InvalidJobError, match="audio_url: must be text, not 5"):
        VoiceJob.model_validate_json('{"audio_url": 5}')


def test_any_mapping_is_the_same_job_as_a_dictionary() -> None:
    """Also that of a song: it gets its model and mode."""
    for fields in ({"prompt": "la"}, {"description": "a song"}):
        assert parse_spec({"audio_url": URL, "song": MappingProxyType(fields)}) == VoiceJob(
            audio_url=URL, song=Song(**fields)
        )


@pytest.mark.filterwarnings("ignore::voicequeue.UnknownModelWarning")
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
@given(data=st.data())
def test_any_value_of_any_field_is_accepted_or_rejected_in_our_words(build: Callable[..., Any], data: Any) -> None:
    """The error is an InvalidJobError that names the field."""
    names = st.sampled_from(sorted(JOB_FIELDS | SONG_FIELDS)) | st.from_regex("[a-z]{1,9}", fullmatch=True)
    fields = data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=3))

    error = error_of(build, fields)

    assert error is None or [problem for problem in error.problems if FOREIGN.search(problem.message)] == []
    assert error is None or (len(error.problems) > 0 and error.__cause__ is None)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: VoiceJob(audio_url=3), "audio_url: must be text, not 3"),
        (lambda: VoiceJob(audio_url=URL, reuse=[]), "reuse: must be true or false, not a list"),
        (lambda: VoiceJob(audio_url=URL, max_credits=-1), "max_credits: must be at least 0, not -1"),
        (lambda: VoiceJob(audio_url=URL, priority="x"), "priority: must be 'high', 'normal' or 'bulk'"),
        (lambda: VoiceJob(audio_url=URL, song=3), "song: must be a Song or an object of its fields, not 3"),
        (lambda: Song(prompt="la", title="x" * 81), "title: has 81 characters; at most 80 are allowed"),
        (lambda: Song(prompt="la", style_weight=3), "style_weight: must be at most 1, not 3"),
        (lambda: Song(prompt="la", stylewight=1), "stylewight: is not known here; did you mean 'style_weight'?"),  # type: ignore[call-arg]
        (lambda: Song(prompt="la", flavour=1), "flavour: is not known here"),  # type: ignore[call-arg]
        (Song, "prompt is required in custom mode, unless make_instrumental or auto_lyrics is true"),
    ],
)
def test_an_error_names_the_field_the_value_and_the_cure(build: Callable[[], Any], text: str) -> None:
    """Numbers are quoted; texts are not, because they may be secrets."""
    with pytest.raises(InvalidJobError, match=f"^{re.escape(text)}$"):
        build()


@pytest.mark.parametrize("job", [None, 3, "https://x.example/a.wav", [("audio_url", URL)], b"{}"])
def test_what_is_no_job_at_all_is_rejected(job: Any) -> None:
    """One by one, and among others."""
    with VoiceQueue("redis://127.0.0.1:1") as queue:  # it is not asked
        with pytest.raises(InvalidJobError, match=r"^must be a VoiceJob or an object of its fields, not "):
            queue.enqueue(job)
        assert isinstance(queue.enqueue_many([job]).rejections[0].error, InvalidJobError)


@pytest.mark.parametrize("jobs", [VoiceJob(audio_url=URL), {"audio_url": URL}, "x"])
def test_one_job_is_not_many(jobs: Any) -> None:
    """Iterating it would enqueue its fields."""
    with VoiceQueue("redis://127.0.0.1:1") as queue, pytest.raises(VoiceQueueError, match="one job with `enqueue`"):
        queue.enqueue_many(jobs)


def test_a_stored_job_is_still_read_without_warnings_of_its_song() -> None:
    """Pydantic calls no constructor for a nested model, which would lose that the job is a stored one."""
    stored = '{"audio_url":"https://x.example/a.wav","song":{"mv":"sonic-v9","prompt":"la","custom_mode":true}}'

    assert parse_stored_spec(stored).song == Song.model_construct(mv="sonic-v9", prompt="la", custom_mode=True)


def test_the_package_names_its_version() -> None:
    """As the command line does."""
    assert voicequeue.__version__ == VERSION
