"""The text of a search, and how it is compared with the names of a job. Pure.

scripts/lib/search.lua compares in Redis in the same way, and may find a little too much: the caller checks the jobs.

A job has tokens, which the summary of a range of jobs keeps (`token_filter`). If a search finds a job, the job has all
tokens of one of the alternatives of the search.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from voicequeue.domain.job import Job

#: The tokens of a search: a job that it finds has all tokens of one of the alternatives.
Alternatives = Sequence[Sequence[str]]

#: The lengths (characters) of the beginnings of words that are tokens; of a longer text, the longest that fits is
#: searched. A change of tokens needs another version in scripts/lib/summaries.lua.
LENGTHS = (1, 2, 3, 4, 6, 8)

#: The most tokens of an alternative; more would exclude few more jobs.
_TOKENS_MAX = 8


@dataclass(frozen=True, slots=True)
class SearchText:
    """A text to search for, without regard to case. In quotation marks it is only found as a whole value.

    Attributes:
        text: The text, folded.
        is_whole: True if it must be a whole value everywhere.
    """

    text: str
    is_whole: bool = False

    @classmethod
    def parse(cls, text: str) -> SearchText:
        """Return the search of what a user entered. Raises ValueError if it is empty."""
        stripped = text.strip()
        is_whole = len(stripped) > 2 and stripped[0] == stripped[-1] == '"'
        folded = fold(stripped[1:-1] if is_whole else stripped)
        if not folded:
            raise ValueError("must not be empty")
        return cls(folded, is_whole)

    def finds(self, job: Job) -> bool:
        """Return whether an id, a key or a metadata value of the job equals the text, or a word of a name begins with
        it."""
        return self._equals_any(_values(job)) or any(map(self._is_begun_in, _names(job)))

    def _equals_any(self, values: Iterable[str | None]) -> bool:
        return any(value is not None and fold(value) == self.text for value in values)

    def _is_begun_in(self, name: str | None) -> bool:
        folded = fold(name or "")
        if self.is_whole or folded == self.text:
            return folded == self.text
        at = folded.find(self.text)
        while at > 0 and folded[at - 1].isalnum():
            at = folded.find(self.text, at + 1)
        return at >= 0

    def alternatives(self) -> Alternatives:
        """Return the tokens that a job has if the search finds it."""
        if self.is_whole:
            return [[_value_token(self.text)]]
        beginnings = {
            self.text[start:][: max(length for length in LENGTHS if length <= len(self.text) - start)]
            for start in _word_starts(self.text)
        }
        longest = sorted(beginnings, key=lambda beginning: (-len(beginning), beginning))[:_TOKENS_MAX]
        return [[_value_token(self.text)], [_word_token(beginning) for beginning in longest]]

    def script_arguments(self) -> Mapping[str, Any]:
        """Return the arguments of `text_search` in scripts/lib/search.lua."""
        forms = sorted({self.text, unicodedata.normalize("NFD", self.text)})
        letters = {letter for form in forms for letter in form}
        return {
            "forms": forms,
            "parts": [json.dumps(form, ensure_ascii=False)[1:-1] for form in forms],
            "whole": self.is_whole,
            "fold": {letter: folded for letter, folded in _foldings() if not letters.isdisjoint(folded)},
        }


@lru_cache(maxsize=256)
def search_text(text: str) -> SearchText:
    """Return the search of what a user entered. Raises ValueError if it is empty."""
    return SearchText.parse(text)


def tokens_of(job: Job) -> set[str]:
    """Return the tokens by which searches find a job."""
    names = [fold(name) for name in _names(job) if name]
    values = [fold(value) for value in _values(job) if value is not None]
    beginnings = {
        name[start : start + length]
        for name in names
        for start in _word_starts(name)
        for length in LENGTHS
        if length <= len(name) - start
    }
    return {_value_token(value) for value in (*names, *values)} | {_word_token(beginning) for beginning in beginnings}


def value_alternatives(value: str) -> Alternatives:
    """Return the tokens that a job has if one of its metadata values equals the text."""
    return [[_value_token(fold(value))]]


def _value_token(folded: str) -> str:
    return f"={folded}"


def _word_token(beginning: str) -> str:
    return f"^{beginning}"


def _word_starts(folded: str) -> Iterator[int]:
    """Return where a search may begin in a name: at its start, and behind each character that is no letter or digit."""
    return (at for at in range(len(folded)) if not at or not folded[at - 1].isalnum())


def fold(text: str) -> str:
    """Return a text as it is compared: without case, and with composed letters."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@cache
def _foldings() -> tuple[tuple[str, str], ...]:
    """Return every letter beyond ASCII that changes when case is removed, with what it becomes."""
    letters = map(chr, range(128, sys.maxunicode + 1))
    return tuple((letter, folded) for letter in letters if (folded := letter.casefold()) != letter)


def _names(job: Job) -> Iterator[str | None]:
    yield job.spec.name
    yield job.spec.song.title if job.spec.song else None
    yield job.voice_name


def _values(job: Job) -> Iterator[str | None]:
    yield job.id
    yield job.spec.key
    yield job.persona_id
    yield from job.message_ids
    yield from job.charged_task_ids.values()
    yield from job.spec.metadata.values()
