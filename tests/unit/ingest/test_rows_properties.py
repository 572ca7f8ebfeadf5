"""One table, any format: the same jobs with the same keys, so that a converted file is not paid twice."""

from __future__ import annotations

import csv
import io
import json
from typing import BinaryIO

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ingest.workbooks import workbook
from voicequeue import InvalidJobError, VoiceJob
from voicequeue.ingest.row import Position, Row
from voicequeue.ingest.row_reader import RowReader

#: Fields, with the names of their columns and cells as people write them.
_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
).map(str.strip)
_CELLS = st.fixed_dictionaries(
    {
        "Audio URL": st.integers(0, 99).map(lambda number: f"https://recordings.example/{number}.wav"),
        "Lyrics": _TEXT | st.sampled_from(["", 'la "la"\nlo;, |\t la', "'quoted", "+1", "-", "0,5", "x"]),
        "style-weight": st.sampled_from(["", "0.5", "0,5", "50 %", "1"]),
        "Instrumental": st.sampled_from(["", "yes", "ja", "x", "FALSE"]),
        "metadata.note": _TEXT | st.sampled_from(["", "5", "TRUE", "é€漢🎵"]),
        "max_credits": st.sampled_from(["", "50.0", "1 000"]),
    }
)
_FIELDS = {"Audio URL": "audio_url", "Lyrics": "prompt", "style-weight": "style_weight",
           "Instrumental": "make_instrumental"}  # fmt: skip
_NUMBERS = {"0,5": 0.5, "50 %": 0.5, "1": 1, "50.0": 50, "1 000": 1000}
_AS_JSON = {**_NUMBERS, "yes": True, "ja": True, "x": True, "FALSE": False}

Table = list[dict[str, str]]
TABLES = st.lists(_CELLS, min_size=1, max_size=4)


def _results(content: bytes) -> list[VoiceJob | str]:
    """Return the jobs of a file, or that a row is invalid."""
    file: BinaryIO = io.BytesIO(content)
    with RowReader(file) as reader:
        return [_result(row) for row in reader]


def _result(row: Row) -> VoiceJob | str:
    try:
        return row.to_job("spring").model_copy(update={"source_row": None})
    except InvalidJobError:
        return "invalid"


def _csv(table: Table, delimiter: str, quoting: int, *, line_end: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)  # type: ignore[arg-type]
    writer.writerows([list(table[0]), *(list(row.values()) for row in table)])
    return text.getvalue()


def _typed(column: str, text: str) -> object:
    return text if column in ("Lyrics", "metadata.note", "Audio URL") else _AS_JSON.get(text, text)


def _objects(table: Table) -> list[dict[str, object]]:
    return [
        {_FIELDS.get(column, column): _typed(column, text) for column, text in row.items() if text} for row in table
    ]


@given(
    TABLES,
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_dialect_of_csv_gives_the_same_jobs(
    table: Table, delimiter: str, quoting: int, encoding: str, line_end: str
) -> None:
    """Delimiter, quotes, encoding, byte order mark and line end do not matter."""
    plain = _csv(table, ",", csv.QUOTE_ALL).encode()

    assert _results(_csv(table, delimiter, quoting, line_end=line_end).encode(encoding)) == _results(plain)


@given(TABLES)
def test_csv_excel_and_json_give_the_same_jobs(table: Table) -> None:
    """JSON as lines, as one array, and indented. Formulas and errors are no jobs in any table."""
    from_csv = _results(_csv(table, ",", csv.QUOTE_ALL).encode())
    objects = _objects(table)
    lines = "".join(json.dumps(item) + "\n" for item in objects)

    assert _results(workbook(list(table[0]), *(list(row.values()) for row in table))) == from_csv
    for text in (lines, json.dumps(objects), json.dumps(objects, indent=2, ensure_ascii=False)):
        from_json = _results(text.encode())
        assert [job for job, cell in zip(from_json, from_csv, strict=True) if cell != "invalid"] == [
            cell for cell in from_csv if cell != "invalid"
        ]


@given(TABLES, st.sampled_from(["csv", "array", "lines", "excel"]))
def test_reading_resumes_after_any_row_of_any_format(table: Table, kind: str) -> None:
    """With the same rows, lines, numbers and places."""
    objects = _objects(table)
    content = {
        "csv": lambda: _csv(table, ";", csv.QUOTE_MINIMAL).encode(),
        "array": lambda: json.dumps(objects).encode(),
        "lines": lambda: "\n".join(map(json.dumps, objects)).encode(),
        "excel": lambda: workbook(list(table[0]), *(list(row.values()) for row in table)),
    }[kind]()
    whole = _places(RowReader(io.BytesIO(content)))

    for place, (_, position) in enumerate(whole):
        rest = RowReader(io.BytesIO(content))
        rest.skip_to(position)
        assert position.lines > 0
        assert _places(rest) == whole[place + 1 :]


def _places(reader: RowReader) -> list[tuple[Row, Position]]:
    return [(row, reader.position) for row in reader]
