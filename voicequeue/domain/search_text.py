"""The text of a search, and how it is compared with the names of a job. Pure.

scripts/lib/search.lua compares in Redis in the same way, and may find a little too much: the caller checks the jobs.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from voicequeue.domain.job import Job


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


def fold(text: str) -> str:
    """Return a text as it is compared: without case, and with composed letters."""
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
