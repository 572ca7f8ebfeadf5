"""Portions of jobs, limited by jobs and by text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from voicequeue import InvalidJobError, Problem
from voicequeue.domain.portions import PORTION_JOBS_MAX, PORTION_TEXT_MAX, Weight, split_into_portions, weight
from voicequeue.domain.spec import parse_spec

URL = "https://a.example/a.wav"


def test_a_portion_ends_with_as_many_jobs_or_as_much_text_as_it_may_have() -> None:
    """An oversized item is a portion by itself; nothing is lost, and the order is kept."""
    items = (
        [Weight(1, 1)] * 700
        + [Weight(100, 1)] * 7
        + [Weight(1, PORTION_TEXT_MAX // 2)] * 3
        + [Weight(1, 3 * PORTION_TEXT_MAX)]
    )

    result = list(split_into_portions(items, lambda item: item))

    assert [item for portion in result for item in portion] == items
    assert [len(portion) for portion in result] == [500, 203, 5, 2, 1]
    assert all(len(portion) == 1 or sum(item.jobs for item in portion) <= PORTION_JOBS_MAX for portion in result)
    assert all(len(portion) == 1 or sum(item.text for item in portion) <= PORTION_TEXT_MAX for portion in result)


def test_a_full_portion_does_not_wait_for_the_next_item() -> None:
    """The source may be slow."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            yield number

    assert next(split_into_portions(source(), lambda _: Weight(1, 1), jobs=2)) == [0, 1]
    assert read == [0, 1]


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
    """The weight is at least the written length and not much more, for parsed and unparsed orders."""
    order = {"audio_url": URL, "batch": "b", "key": "k", **fields}
    job = parse_spec(order)
    expanded = job.expand()
    written = sum(len(part.canonical_content()) for part in expanded)

    for measured in (weight(job), weight(order)):
        assert measured.jobs == len(expanded)
        assert written <= measured.text <= written + 600 * len(expanded)


def test_an_invalid_row_weighs_as_much_as_its_problems() -> None:
    """Rejected rows stay in memory until they are reported."""
    assert weight(InvalidJobError([Problem("f" * 50, "m" * 1_000)] * 100)).text > 100_000
    assert weight({"songs": "no list", "metadata": 7, "audio_url": None}).jobs == 1
