"""Jobs in portions, by jobs and by text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from voicequeue import InvalidJob, Problem
from voicequeue.domain.portions import CHUNK, TEXT_MAX, Weight, portions, weight
from voicequeue.domain.spec import parse

URL = "https://a.example/a.wav"


def test_a_portion_ends_with_as_many_jobs_or_as_much_text_as_it_may_have() -> None:
    """One that is too large alone is a portion of its own; nothing is lost, and the order stays."""
    items = [Weight(1, 1)] * 700 + [Weight(100, 1)] * 7 + [Weight(1, TEXT_MAX // 2)] * 3 + [Weight(1, 3 * TEXT_MAX)]

    found = list(portions(items, lambda item: item))

    assert [item for portion in found for item in portion] == items
    assert [len(portion) for portion in found] == [500, 203, 5, 2, 1]
    assert all(len(each) == 1 or sum(item.jobs for item in each) <= CHUNK for each in found)
    assert all(len(each) == 1 or sum(item.text for item in each) <= TEXT_MAX for each in found)


def test_a_full_portion_does_not_wait_for_the_next_item() -> None:
    """The source may be slow."""
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    assert next(portions(source(), lambda _: Weight(1, 1), jobs=2)) == [0, 1]
    assert taken == [0, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"metadata": {"a": "b" * 7_000}},
        {"song": {"prompt": "p" * 4_000, "tags": "t" * 900}},
        {"songs": [{"prompt": "la"}] * 100, "metadata": {"a": "b" * 7_000}},
        {"songs": [{"prompt": "p" * 4_000, "negative_tags": "n" * 900}] * 50},
    ],
)
def test_a_job_weighs_what_it_expands_to(fields: dict[str, Any]) -> None:
    """At least as much as is written of it, and not much more; parsed or not."""
    given = {"audio_url": URL, "batch": "b", "key": "k", **fields}
    job = parse(given)
    expanded = job.each()
    written = sum(len(part.content()) for part in expanded)

    for found in (weight(job), weight(given)):
        assert found.jobs == len(expanded)
        assert written <= found.text <= written + 600 * len(expanded)


def test_what_is_wrong_weighs_what_is_said_of_it() -> None:
    """Rows that are rejected are kept until they are told."""
    assert weight(InvalidJob([Problem("f" * 50, "m" * 1_000)] * 100)).text > 100_000
    assert weight({"songs": "no list", "metadata": 7, "audio_url": None}).jobs == 1
