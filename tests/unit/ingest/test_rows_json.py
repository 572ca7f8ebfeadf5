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

from tests.unit.ingest.files import A, jobs, row_error, rows
from voicequeue.ingest.row import Row
from voicequeue.ingest.row_reader import RowReader

# ── JSON Lines ────────────────────────────────────────────────────────────────────────────────────


def json_rows(*objects: Any) -> list[Row]:
    """Return the rows of a JSON Lines file."""
    return rows(*(json.dumps(content) for content in objects))


def test_json_may_be_nested_like_a_job_or_flat_like_a_row() -> None:
    """Both give the same job, with the same key."""
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


def test_an_invalid_line_rejects_only_itself() -> None:
    """The others are accepted; blank lines are counted too."""
    good = json.dumps({"audio_url": A})

    parsed = rows(good, "", '{"audio_url": ', "[]", '"text"', good)

    assert [row.line for row in parsed] == [1, 3, 4, 5, 6]
    assert "not readable as JSON" in row_error(parsed[1])
    assert row_error(parsed[2]) == row_error(parsed[3]) == "must be a JSON object"
    assert jobs([parsed[0], parsed[4]])[0].audio_url == A


def test_deeply_nested_json_rejects_only_itself() -> None:
    """No line can end the reader."""
    deep, good = rows('{"audio_url":' + "[" * 100_000, json.dumps({"audio_url": A}))

    assert "not readable as JSON" in row_error(deep)
    assert good.to_job("b").audio_url == A


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"song": "la la"}, "song"),
        ({"song": "la la", "title": "T"}, "song"),
        ({"metadata": "x", "metadata.a": "1"}, "metadata"),
        ({"promt": "la"}, "promt"),
        ({"title": 7, "prompt": "la"}, "title"),
        ({"batch": "autumn"}, "batch"),
    ],
)
def test_an_invalid_value_is_rejected_and_never_dropped(fields: dict[str, object], field: str) -> None:
    """A value of the wrong type is reported by its column; the job is not enqueued without it."""
    [row] = json_rows({"audio_url": A, **fields})

    assert row_error(row).startswith(field)


def test_null_omits_the_field() -> None:
    """Programs write every field."""
    [job] = jobs(json_rows({"audio_url": A, "persona_id": None, "song": None, "title": None, "prompt": "la"}))

    assert job.song is not None
    assert job.song.prompt == "la"


def test_json_may_name_the_batch_it_is_ingested_into() -> None:
    """A line exported from that batch is accepted."""
    [job] = jobs(json_rows({"audio_url": A, "batch": "spring"}))

    assert job.batch == "spring"


# ── rejected rows ─────────────────────────────────────────────────────────────────────────────────


def test_the_columns_line_and_reason_of_a_rejected_file_are_ignored() -> None:
    """It can be corrected and ingested directly."""
    [job] = jobs(rows("line,reason,audio_url,name", f'7,"audio_url: must be, an URL",{A},Ana'))

    assert (job.audio_url, job.name, job.metadata) == (A, "Ana", {})


def test_a_corrected_row_gives_the_same_job() -> None:
    """Its key does not depend on the file."""
    [corrected] = jobs(rows("line,reason,audio_url", f"7,why,{A}"))
    [original] = jobs(rows("audio_url", A))

    assert corrected == original


def test_rejected_json_lines_can_be_corrected_too() -> None:
    """The column `row` contains them unchanged."""
    text = io.StringIO()
    csv.writer(text).writerows([["line", "reason", "row"], [3, "why", json.dumps({"audio_url": A, "name": "Ana"})]])

    [row] = rows(text.getvalue())

    assert (row.line, row.cells["row"]) == (2, json.dumps({"audio_url": A, "name": "Ana"}))
    assert row.to_job("b").name == "Ana"


# ── streams ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [f"audio_url\n{A}\n", json.dumps({"audio_url": A}) + "\n"], ids=["CSV", "JSON"])
@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "raw"])
def test_a_pipe_is_read_like_a_file(text: str, buffering: int) -> None:
    """Without seeking; a row is returned before the pipe ends."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=buffering) as source, os.fdopen(writing, "wb", buffering=0) as sink:
        sink.write(text.encode())
        parsed = iter(RowReader(source))
        assert next(parsed).to_job("b").audio_url == A
        sink.close()
        assert list(parsed) == []


def test_rows_are_read_lazily() -> None:
    """A file larger than memory can be ingested."""
    source = Endless()

    parsed = iter(RowReader(cast(BinaryIO, io.BufferedReader(source))))
    first = [next(parsed) for _ in range(100)]

    assert first[-1].line == 101
    assert source.bytes_read < 1_000_000


class Endless(io.RawIOBase):
    """A file of recordings without an end."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_read = 0
        self._lines = self._endless()

    def _endless(self) -> Iterator[bytes]:
        yield b"audio_url\n"
        while True:
            yield f"{A}\n".encode() * 100

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next hundred lines."""
        piece = next(self._lines)
        buffer[: len(piece)] = piece
        self.bytes_read += len(piece)
        return len(piece)


def test_the_sample_is_readable() -> None:
    """The file shown in the documentation and used by the demo."""
    with (Path(__file__).parents[3] / "samples" / "voices.csv").open("rb") as sample:
        samples = [row.to_job("demo") for row in RowReader(sample)]

    assert len(samples) == 12
    assert all(job.song is not None for job in samples)
