"""The tokens of jobs and of searches: a job that a search finds has the tokens of the search."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.jobs import voice
from voicequeue import Job, Song
from voicequeue.domain import token_filter
from voicequeue.domain.job import queued_job
from voicequeue.domain.search_text import SearchText, fold, tokens_of, value_alternatives

LETTERS = "aAbBnN ßẞéÉ'-_.12İıΣς"
names = st.text(st.sampled_from(LETTERS) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
values = st.text(st.sampled_from(LETTERS), max_size=6)


def job_with(name: str = "x", **fields: object) -> Job:
    """Return a queued job."""
    job = queued_job("id0", voice().copy_unchecked(name=name), 1.0, source="library")
    return replace(job, **fields)  # type: ignore[arg-type]


def may_be_found(search: SearchText, job: Job) -> bool:
    """Return whether the job has all tokens of an alternative."""
    tokens = tokens_of(job)
    return any(tokens.issuperset(alternative) for alternative in search.alternatives())


@given(name=names, start=st.integers(0, 40), length=st.integers(1, 40), is_whole=st.booleans(), form=st.integers(0, 2))
@example(name="Anna-Maria Ößel", start=5, length=40, is_whole=False, form=1)
@example(name="a" * 9, start=0, length=9, is_whole=True, form=0)
def test_a_job_that_is_found_has_the_tokens_of_the_search(
    name: str, start: int, length: int, is_whole: bool, form: int
) -> None:
    """Searches for parts of its names and values, in any case and form."""
    part = name[start : start + length]
    text = [part, unicodedata.normalize("NFD", part), part.upper()][form]
    try:
        search = SearchText.parse(f'"{text}"' if is_whole else text)
    except ValueError:
        return
    jobs = [
        job_with(name),
        job_with(voice_name=name),
        job_with(persona_id=name),
        job_with(message_ids=("m", name)),
        job_with(charged_task_ids={1: "t", 2: name}),
        replace(job_with(), spec=voice(metadata={"a": name}).copy_unchecked(song=Song(title=name, prompt="la"))),
    ]

    for job in jobs:
        assert may_be_found(search, job) or not search.finds(job), job


@given(value=values, other=values)
def test_a_job_with_a_metadata_value_has_its_token(value: str, other: str) -> None:
    """Also an empty value."""
    tokens = tokens_of(replace(job_with(), spec=voice().copy_unchecked(metadata={"a": value})))

    assert all(tokens.issuperset(alternative) for alternative in value_alternatives(value))
    assert any(tokens.issuperset(alternative) for alternative in value_alternatives(f"-{other}")) == (
        fold(value) == fold(f"-{other}")
    )


def test_a_search_for_several_words_needs_each_of_them() -> None:
    """A thousand jobs may share one of the words."""
    search = SearchText.parse("Berta 17")

    assert may_be_found(search, job_with("Berta 17 b"))
    assert not may_be_found(search, job_with("Berta 18"))
    assert not may_be_found(search, job_with("Anna 17"))
    assert not may_be_found(SearchText.parse("a name of many letters, one"), job_with("a name of many letters, two"))
    assert not may_be_found(SearchText.parse("number 0012"), job_with("number 0013"))


def test_a_long_search_has_few_tokens() -> None:
    """A text of thousands of words is not looked up word by word."""
    alternatives = SearchText.parse("a b " * 5_000).alternatives()

    assert sum(map(len, alternatives)) <= 9


@given(tokens=st.sets(st.text(max_size=8), min_size=1, max_size=200))
@example(tokens={"\ud800"})
def test_a_filter_holds_all_of_its_tokens(tokens: set[str]) -> None:
    """It is a text of ASCII."""
    text = token_filter.build(tokens, 10_000)

    assert text.isascii()
    assert all(token_filter.holds(text, [token]) for token in tokens)


@pytest.mark.parametrize("count", [10, 5_000])
def test_a_filter_seldom_holds_another_token(count: int) -> None:
    """One of five thousand at most."""
    texts = [token_filter.build({f"token {number} {t}" for number in range(count)}, 100_000) for t in range(10)]

    wrong = sum(token_filter.holds(text, [f"other {number}"]) for number in range(2_000) for text in texts)

    assert wrong <= 4
    assert max(map(len, texts)) <= count * 24 / 7 + 2


def test_a_filter_has_an_upper_size() -> None:
    """With more tokens it excludes less; it still holds all."""
    tokens = {str(number) for number in range(1_000)}

    for bytes_max in (1_000, 1, 0):
        text = token_filter.build(tokens, bytes_max)

        assert len(text) == max(1, bytes_max)
        assert token_filter.holds(text, tokens)
