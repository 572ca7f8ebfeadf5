"""Jobs from JSON Lines, from files of rejected rows, and from streams."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from tests.unit.ingest.files import A, jobs, rows, trouble
from voicequeue.ingest.row_reader import Row, Rows

# ── JSON Lines ────────────────────────────────────────────────────────────────────────────────────


def json_rows(*objects: Any) -> list[Row]:
    """The rows of a JSON Lines file."""
    return rows(*(json.dumps(each) for each in objects))


def test_json_may_be_nested_as_a_job_is_or_flat_as_a_row_is() -> None:
    """Either way it is the same job, with the same key."""
    nested = {"audio_url": A, "song": {"prompt": "la", "title": "T"}, "metadata": {"artist": "ana"}}
    flat = {"audio_url": A, "prompt": "la", "title": "T", "metadata.artist": "ana"}
    mixed = {"audio_url": A, "song": {"prompt": "la"}, "title": "T", "metadata": {}, "metadata.artist": "ana"}

    one, two, three = jobs(json_rows(nested, flat, mixed))

    assert one == two == three


def test_csv_and_json_of_the_same_row_are_the_same_job() -> None:
    """A file may be converted, and ingested again without paying twice."""
    [from_csv] = jobs(rows("audio_url,prompt,style_weight,make_instrumental", f"{A},la,0.50,true"))
    [from_json] = jobs(json_rows({"audio_url": A, "prompt": "la", "style_weight": 0.5, "make_instrumental": True}))

    assert from_csv == from_json


def test_a_line_that_is_no_json_costs_itself_only() -> None:
    """The others are taken; lines are counted, blank ones too."""
    good = json.dumps({"audio_url": A})

    found = rows(good, "", '{"audio_url": ', "[]", '"text"', good)

    assert [row.line for row in found] == [1, 3, 4, 5, 6]
    assert "not readable as JSON" in trouble(found[1])
    assert trouble(found[2]) == trouble(found[3]) == "must be a JSON object"
    assert jobs([found[0], found[4]])[0].audio_url == A


def test_json_of_endless_brackets_costs_itself_only() -> None:
    """No line can bring the reader down."""
    deep, good = rows('{"audio_url":' + "[" * 100_000, json.dumps({"audio_url": A}))

    assert "not readable as JSON" in trouble(deep)
    assert good.job("b").audio_url == A


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"song": "la la"}, "song"),
        ({"song": "la la", "title": "T"}, "song"),
        ({"metadata": "x", "metadata.a": "1"}, "metadata"),
        ({"promt": "la"}, "promt"),
        ({"title": 7, "prompt": "la"}, "title"),
        ({"batch": "autumn"}, "batch"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_dropped(given: dict[str, object], field: str) -> None:
    """A value of the wrong kind names its column; nothing is enqueued without it."""
    [row] = json_rows({"audio_url": A, **given})

    assert trouble(row).startswith(field)


def test_null_is_a_field_left_out() -> None:
    """Programs write every field."""
    [job] = jobs(json_rows({"audio_url": A, "persona_id": None, "song": None, "title": None, "prompt": "la"}))

    assert job.song is not None
    assert job.song.prompt == "la"


def test_json_may_say_the_batch_that_it_goes_into_anyway() -> None:
    """A line exported from that batch is not refused for it."""
    [job] = jobs(json_rows({"audio_url": A, "batch": "spring"}))

    assert job.batch == "spring"


# ── rejected rows, again ──────────────────────────────────────────────────────────────────────────


def test_the_line_and_the_reason_of_a_rejected_file_are_passed_over() -> None:
    """It can be mended and ingested as it is."""
    [job] = jobs(rows("line,reason,audio_url,name", f'7,"audio_url: must be, an URL",{A},Ana'))

    assert (job.audio_url, job.name, job.metadata) == (A, "Ana", {})


def test_a_mended_row_is_the_job_that_it_would_have_been() -> None:
    """Its key does not depend on the file that it came in."""
    [mended] = jobs(rows("line,reason,audio_url", f"7,why,{A}"))
    [original] = jobs(rows("audio_url", A))

    assert mended == original


def test_rejected_json_lines_can_be_mended_too() -> None:
    """They stand whole in the column `row`."""
    text = io.StringIO()
    csv.writer(text).writerows([["line", "reason", "row"], [3, "why", json.dumps({"audio_url": A, "name": "Ana"})]])

    [row] = rows(text.getvalue())

    assert (row.line, row.cells["row"]) == (2, json.dumps({"audio_url": A, "name": "Ana"}))
    assert row.job("b").name == "Ana"


# ── streams ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [f"audio_url\n{A}\n", json.dumps({"audio_url": A}) + "\n"], ids=["CSV", "JSON"])
@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "raw"])
def test_a_pipe_is_read_like_a_file(text: str, buffering: int) -> None:
    """Nothing is sought; the row is there before the pipe ends."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=buffering) as source, os.fdopen(writing, "wb", buffering=0) as sink:
        sink.write(text.encode())
        found = iter(Rows(source))
        assert next(found).job("b").audio_url == A
        sink.close()
        assert list(found) == []


def test_rows_are_read_one_after_another() -> None:
    """A file larger than memory can be ingested: what is not asked for is not read."""
    source = Endless()

    found = iter(Rows(cast(BinaryIO, io.BufferedReader(source))))
    first = [next(found) for _ in range(100)]

    assert first[-1].line == 101
    assert source.told < 1_000_000


class Endless(io.RawIOBase):
    """A file of recordings without an end."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0
        self._lines = self._endless()

    def _endless(self) -> Iterator[bytes]:
        yield b"audio_url\n"
        while True:
            yield f"{A}\n".encode() * 100

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next hundred lines."""
        piece = next(self._lines)
        buffer[: len(piece)] = piece
        self.told += len(piece)
        return len(piece)


def test_the_sample_is_readable() -> None:
    """The file that the documentation shows, and the demo runs."""
    with (Path(__file__).parents[3] / "samples" / "voices.csv").open("rb") as sample:
        found = [row.job("demo") for row in Rows(sample)]

    assert len(found) == 12
    assert all(job.song is not None for job in found)
