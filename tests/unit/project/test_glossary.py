"""The glossary in docs/explanation/concepts.md and the code use the same words."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from voicequeue.domain.gate import HoldReason
from voicequeue.domain.job_holds import JobHoldReason
from voicequeue.domain.source import Source
from voicequeue.domain.states import FailureCode, State

ROOT = Path(__file__).parents[3]
CONCEPTS = (ROOT / "docs" / "explanation" / "concepts.md").read_text(encoding="utf-8")
PACKAGES = ("voicequeue", "tasks", "workers", "config")
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in {".py", ".lua", ".html", ".yml"}
)

#: Words that an earlier vocabulary used, and the word of the glossary that replaced each of them.
RETIRED = {
    "pulse": "dispatcher, maintenance or heartbeat",
    "tally": "metrics counter",
    "luck": "jitter",
    "door": "source",
    "patience": "timeouts",
    "hasten": "reassign",
    "foreseen": "preview",
    "promised": "reserved",
}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the first table below a heading."""
    section = CONCEPTS.partition(heading)[2]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table[0].splitlines()[2:]]


GLOSSARY = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in CONCEPTS.partition("## Glossary")[2].splitlines()
    if line.startswith("| ") and not line.startswith("| word ")
]


def quoted(text: str) -> set[str]:
    """Return the names between backticks."""
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize(("heading", "words"), [("# Concepts", State), ("## Failures", FailureCode)])
def test_the_page_explains_every_state_and_every_failure_code(heading: str, words: type[StrEnum]) -> None:
    """A new one needs a line there."""
    assert {name for row in rows(heading) for name in quoted(row[0])} == set(words)


@pytest.mark.parametrize(("word", "values"), [("hold", HoldReason), ("job hold", JobHoldReason), ("source", Source)])
def test_the_glossary_lists_the_values_of_a_word(word: str, values: type[StrEnum]) -> None:
    """The reasons of holds and of job holds, and the sources of jobs."""
    [meaning] = [row[1] for row in GLOSSARY if row[0] == word]

    assert quoted(meaning) == set(values)


@pytest.mark.parametrize("word", GLOSSARY, ids=lambda row: row[0])
def test_a_word_of_the_glossary_occurs_where_it_says(word: list[str]) -> None:
    """The names in the last column exist in the code."""
    names = quoted(word[2])

    assert [
        name for name in names if name.removeprefix("voicequeue ").partition(":")[0].lower() not in CODE.lower()
    ] == []


def test_a_word_is_defined_once() -> None:
    """One word, one meaning."""
    words = [row[0] for row in GLOSSARY]

    assert len(words) == len(set(words))


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_occurs_nowhere_in_the_code(word: str) -> None:
    """Otherwise one concept has two names; the glossary has the current one."""
    assert re.findall(rf"(?i)(?<![a-z]){word}s?(?![a-z])", CODE) == [], f"use {RETIRED[word]}"
