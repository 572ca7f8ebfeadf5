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

from tests.unit.ingest.files import A, file, jobs, piped, row_error, rows
from voicequeue.ingest.row import ExtraColumns, ReadOptions, Row, UnreadableFileError
from voicequeue.ingest.row_reader import ROW_MAX, RowReader

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


@pytest.mark.parametrize(
    ("header", "places", "source_row"),
    [(["row", "line", "reason", "json"], [3, 9], 3), (["line", "reason", "row"], [9], None)],
    ids=["today", "earlier versions"],
)
def test_rejected_json_lines_can_be_corrected_too(header: list[str], places: list[int], source_row: int | None) -> None:
    """One column contains them unchanged."""
    text, content = io.StringIO(), json.dumps({"audio_url": A, "name": "Ana"})
    csv.writer(text).writerows([header, [*places, "why", content]])

    [row] = rows(text.getvalue())

    assert (row.line, row.cells["json"], row.source.line) == (2, content, 9)
    assert (row.to_job("b").name, row.to_job("b").source_row) == ("Ana", source_row)


@pytest.mark.parametrize(("cell", "source_row"), [("9", 9), (" 9.0 ", 9), ("", None), ("x", None), ("9" * 20, None)])
def test_a_corrected_row_keeps_the_row_of_the_first_input(cell: str, source_row: int | None) -> None:
    """As a spreadsheet program may write it; none is better than that of the file of rejected rows."""
    [row] = rows("row,line,reason,audio_url", f"{cell},12,why,{A}")

    assert row.to_job("b").source_row == source_row


def test_a_column_row_of_another_file_is_unknown() -> None:
    """Only files of rejected rows have the number of a row."""
    with pytest.raises(UnreadableFileError, match="unknown column 'row'"):
        rows("row,audio_url", f"9,{A}")


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


# ── documents ─────────────────────────────────────────────────────────────────────────────────────

OBJECTS = [{"audio_url": A, "name": f'n"{number}\\', "metadata": {"n": number}} for number in range(5)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=2),
        json.dumps(OBJECTS, indent=None, separators=(",", ":")),
        "\n\n  " + json.dumps(OBJECTS, indent="\t") + "\n\n",
        "\n".join(json.dumps(item, indent=4) for item in OBJECTS),
        " ".join(json.dumps(item) for item in OBJECTS),
        "\n".join(json.dumps(item) for item in OBJECTS),
        json.dumps(OBJECTS, indent=2).replace("\n", "\r\n"),
    ],
    ids=["array", "pretty array", "compact", "spaced", "pretty objects", "one line", "JSON Lines", "Windows"],
)
def test_json_in_any_layout_gives_the_same_jobs(text: str) -> None:
    """With the same keys, numbered from 1, and from a pipe as from a file."""
    expected = jobs(json_rows(*OBJECTS))
    parsed = rows(text, end=b"")

    assert jobs(parsed) == jobs(piped(text)) == expected
    assert [row.number for row in parsed] == [1, 2, 3, 4, 5]


def test_an_element_has_the_number_and_the_line_of_its_start() -> None:
    """The line is that of an editor."""
    parsed = rows(json.dumps(OBJECTS[:3], indent=1))

    assert [(row.number, row.line) for row in parsed] == [(1, 2), (2, 9), (3, 16)]


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_that_is_cut_off_gives_the_rows_before(indent: int | None) -> None:
    """The cut one is rejected, and the error says so."""
    whole = json.dumps(OBJECTS[:3], indent=indent)

    first, second, cut = rows(whole[: whole.rindex("metadata")], end=b"")
    *three, unclosed = rows(whole.rstrip("]\n"), end=b"")

    assert jobs([first, second]) == jobs(json_rows(*OBJECTS[:2]))
    assert "is not closed, so the file may be cut off" in row_error(cut)
    assert jobs(three) == jobs(json_rows(*OBJECTS[:3]))
    assert "the array is not closed by ']'" in row_error(unclosed)


def test_a_pretty_object_that_is_cut_off_is_rejected() -> None:
    """One alone."""
    [cut] = rows(json.dumps(OBJECTS[0], indent=2)[:-30], end=b"")

    assert "is not closed, so the file may be cut off" in row_error(cut)


def test_a_last_line_of_json_that_is_cut_off_is_named_as_such() -> None:
    """The lines before are fine."""
    good, cut = rows(json.dumps(OBJECTS[0]) + "\n" + json.dumps(OBJECTS[1])[:-9], end=b"")

    assert good.to_job("b").audio_url == A
    assert row_error(cut).endswith("the file may be cut off here")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'[{{"audio_url": "{A}"}} {{"audio_url": "{A}"}}]', "'{' is not expected here"),
        (f'[{{"audio_url": "{A}"}},]', "']' is not expected here"),
        (f'[{{"audio_url": "{A}"}}] x', "continues after the end of its array"),
        (f'[{{"audio_url": "{A}"}}, {{"name": "a\n"}}]', "a text is not closed on its line"),
    ],
)
def test_damage_between_elements_ends_the_file_with_an_error(text: str, reason: str) -> None:
    """What follows has no certain meaning, and the error says that it was not read."""
    good, bad = rows(text)

    assert good.to_job("b").audio_url == A
    assert reason in row_error(bad)
    assert row_error(bad).endswith("nothing after it was read")


def test_an_element_that_is_no_object_rejects_only_itself() -> None:
    """Texts, numbers, arrays, and objects with errors inside."""
    parsed = rows(f'["a, ]", 1, null, [1, 2], {{"name": 1 2}}, {{"audio_url": "{A}"}}]')

    assert [row.fields is None for row in parsed] == [True] * 5 + [False]
    assert row_error(parsed[0]) == "must be a JSON object"


def test_an_empty_array_has_no_rows() -> None:
    """There is nothing to do, which is no error."""
    assert rows("[]") == rows(" [ \n ] ") == []


def test_an_element_that_is_too_long_ends_the_file() -> None:
    """It is not kept in memory."""
    good, bad = rows(json.dumps([OBJECTS[0], {"audio_url": "x" * (2 * ROW_MAX)}, OBJECTS[1]]))

    assert good.to_job("b").audio_url == A
    assert "more than 1,048,576 characters" in row_error(bad)


def test_a_long_array_on_one_line_is_read_in_pieces() -> None:
    """A hundred megabytes on one line would take no more memory than this."""
    source = OneLine()
    parsed = iter(RowReader(cast(BinaryIO, io.BufferedReader(source))))

    assert [next(parsed).number for _ in range(1_000)][-1] == 1_000
    assert source.bytes_read < 1_000_000


def test_a_field_that_occurs_twice_rejects_its_row() -> None:
    """One of the two values would be lost."""
    twice, nested = rows(
        f'{{"audio_url": "{A}", "audio_url": "{A}"}}', f'{{"audio_url": "{A}", "metadata": {{"a": "1", "a": "2"}}}}'
    )

    assert row_error(twice) == "the field 'audio_url' occurs twice"
    assert row_error(nested) == "the field 'a' occurs twice"


def test_numbers_and_booleans_in_the_metadata_are_texts() -> None:
    """As they are written in JSON; null is no entry."""
    metadata = {"a": 5, "b": 0.5, "c": True, "d": None, "e": "x"}
    flat_metadata = {f"metadata.{name}": value for name, value in metadata.items()}
    [nested, flat] = jobs(json_rows({"audio_url": A, "metadata": metadata}, {"audio_url": A, **flat_metadata}))

    assert nested.metadata == flat.metadata == {"a": "5", "b": "0.5", "c": "true", "e": "x"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_rejects_its_row(number: str) -> None:
    """Python's JSON reads it, other programs do not."""
    assert row_error(rows(f'{{"audio_url": "{A}", "metadata": {{"a": {number}}}}}')[0]) == f"{number} is not a number"


class OneLine(io.RawIOBase):
    """An array without an end, on one line."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next elements."""
        piece = (b"," if self.bytes_read else b"[") + b", ".join([json.dumps({"audio_url": A}).encode()] * 10)
        buffer[: len(piece)] = piece
        self.bytes_read += len(piece)
        return len(piece)


@pytest.mark.parametrize("extra", ExtraColumns)
def test_a_list_inside_an_object_is_named_with_the_cure(extra: ExtraColumns) -> None:
    """Ignoring it would ignore every row."""
    [row] = RowReader(file(json.dumps({"rows": [{"audio_url": A}], "total": 1})), ReadOptions(extra_columns=extra))

    assert row_error(row) == "'rows' contains a list: the list must be the outermost value of the file, from [ to ]"


@pytest.mark.parametrize(("name", "hint"), [("Lyrics", "prompt"), ("promt", "prompt"), ("url", "audio_url")])
def test_an_unknown_field_is_answered_with_a_question(name: str, hint: str) -> None:
    """As an unknown column is."""
    [row] = rows(json.dumps({"persona_id": "p", name: "x"}))

    assert row_error(row) == f"{name}: is not known here; did you mean {hint!r}?"


@pytest.mark.parametrize("value", ["", " ", [[]] * 3, {"": ""}, None, 5])
def test_no_value_of_a_field_ends_the_reading(value: object) -> None:
    """Its row is a job or an error; the next one is read."""
    fields = ("name", "key", "song", "songs", "metadata", "metadata.note", "prompt", "title", "unknown")
    lines = [json.dumps({"audio_url": A, field: value}) for field in fields]

    parsed = rows(*lines, json.dumps({"audio_url": A}))

    assert [row.line for row in parsed] == list(range(1, len(fields) + 2))
    assert jobs(parsed[-1:])[0].audio_url == A


def test_values_that_are_nested_deeply_reject_their_row() -> None:
    """However deep: neither the reader nor the check of the job runs out of stack."""
    lines = [f'{{"audio_url": "{A}", "metadata": {"[" * depth}{"]" * depth}}}' for depth in (10, 300, 900, 100_000)]

    parsed = rows(*lines, json.dumps({"audio_url": A}))

    assert all(row_error(row) for row in parsed[:-1])
    assert jobs(parsed[-1:])[0].audio_url == A
