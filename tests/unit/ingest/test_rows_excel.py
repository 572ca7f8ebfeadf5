"""Jobs from Excel workbooks: what the sheet shows, and nothing that is not certain."""

from __future__ import annotations

import datetime
import gzip
import io
import sys
import time
import tracemalloc
import zipfile
from typing import Any, BinaryIO, cast

import openpyxl
import pytest
from openpyxl.styles import PatternFill

from tests.unit.ingest.files import A, B, C, Pipe, jobs, row_error, rows
from tests.unit.ingest.workbooks import inline, saved, workbook, written, xml_row
from voicequeue.ingest.compression import decompressed
from voicequeue.ingest.lines import ROW_MAX
from voicequeue.ingest.row import FileFormat, FileKind, ReadOptions, Row, UnreadableFileError
from voicequeue.ingest.row_reader import RowReader

HEADER = ("audio_url", "name", "metadata.note")


def excel_rows(content: bytes, **options: Any) -> list[Row]:
    """Return the rows of a workbook."""
    with RowReader(io.BytesIO(content), ReadOptions(**options)) as reader:
        return list(reader)


def excel_error(content: bytes, **options: Any) -> str:
    """Return the error that rejects the whole workbook."""
    with pytest.raises(UnreadableFileError) as raised:
        excel_rows(content, **options)
    return str(raised.value)


# ── sheets ────────────────────────────────────────────────────────────────────────────────────────


def test_a_workbook_gives_the_jobs_of_its_csv() -> None:
    """With the same keys: a file may be converted, and ingested again without paying twice."""
    cells = [A, "Björn", "50", "la\nla", "0.5", "yes"]
    header = ["Audio URL", "name", "max_credits", "Lyrics", "style_weight", "reuse"]
    [typed] = excel_rows(workbook(header, [A, "Björn", 50.0, "la\nla", 0.5, True]))

    assert jobs([typed]) == jobs(excel_rows(workbook(header, cells)))
    assert jobs([typed]) == jobs(rows(",".join(header), f'{A},Björn,50,"la', 'la",0.5,yes'))
    assert (typed.line, typed.number) == (2, 2)


def test_the_format_of_a_workbook_is_excel() -> None:
    """The file of its rejected rows opens in the same program."""
    reader = RowReader(io.BytesIO(workbook(HEADER)))

    assert (reader.format, reader.columns) == (FileFormat(FileKind.EXCEL, sheet="Voices"), HEADER)


def test_a_workbook_is_recognized_from_a_pipe_and_compressed() -> None:
    """Standard input is spooled, because a workbook is read from its end."""
    content = workbook(HEADER, [A, "Ana"])
    piped = RowReader(cast(BinaryIO, io.BufferedReader(Pipe(content))))
    unpacked = RowReader(decompressed(io.BytesIO(gzip.compress(content))))

    assert jobs(list(piped)) == jobs(list(unpacked)) == jobs(excel_rows(content))


def test_the_first_sheet_that_is_visible_is_read_or_the_one_of_the_option() -> None:
    """Its name may have another case."""
    content = workbook(HEADER, [A, "Ana"], Second=[[*HEADER], [B, "Bo"]])
    book = openpyxl.load_workbook(io.BytesIO(content))
    book.worksheets[0].sheet_state = "hidden"

    assert jobs(excel_rows(content))[0].name == "Ana"
    assert jobs(excel_rows(content, sheet="second"))[0].name == "Bo"
    assert jobs(excel_rows(saved(book)))[0].name == "Bo"


def test_an_unknown_sheet_is_an_error_with_the_names() -> None:
    """All of them."""
    error = excel_error(workbook(HEADER, Second=[]), sheet="Third")

    assert error == "there is no sheet 'Third'; the sheets are 'Voices', 'Second'"


def test_sheets_that_are_not_read_are_named() -> None:
    """A year of twelve sheets must not become one month. Hidden and empty sheets are not meant."""
    book = openpyxl.load_workbook(
        io.BytesIO(workbook(HEADER, [A], title="Jan", Feb=[[*HEADER], [B]], Mar=[[*HEADER]], Old=[["x"]], Empty=[]))
    )
    book["Old"].sheet_state = "hidden"
    content = io.BytesIO(saved(book))

    assert RowReader(content).note == "read sheet 'Jan'; not read: 'Feb', 'Mar' (--sheet NAME)"
    assert RowReader(content, ReadOptions(sheet="Feb")).note == ""
    assert RowReader(io.BytesIO(workbook(HEADER, [A]))).note == ""


def test_an_error_of_the_header_names_the_sheet_and_the_others() -> None:
    """The list may be on another sheet than the first."""
    content = workbook(["Read me"], title="Info", List=[[*HEADER], [A]])

    assert excel_error(content).endswith(". This is sheet 'Info'; to read another one ('List'), pass --sheet NAME")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "openpyxl", None)

    assert excel_error(workbook(HEADER)) == (
        "reading Excel files needs the package openpyxl: pip install 'voicequeue[excel]'"
    )


# ── the header ────────────────────────────────────────────────────────────────────────────────────


def test_blank_rows_above_the_header_count_and_a_title_is_pointed_out() -> None:
    """By the numbers that Excel shows."""
    [row] = excel_rows(workbook([], [None], HEADER, [A, "Ana"]))
    title = workbook(["My voices"], [], HEADER, [A, "Ana"])

    assert row.number == 4
    assert excel_error(title) == "row 1 is not a header, but row 3 looks like one; delete rows 1 to 2 above it"


def test_an_empty_sheet_is_an_error() -> None:
    """It names the sheet, which may be the wrong one."""
    assert excel_error(workbook()) == "sheet 'Voices' is empty: its first row must name the columns"


def test_unknown_columns_are_an_error_as_in_csv() -> None:
    """With the choices."""
    assert excel_error(workbook([*HEADER, "Mood"])).startswith("unknown column 'Mood'. Rename or delete it, or pass")


def test_a_value_beyond_the_header_rejects_its_row() -> None:
    """It has no name."""
    bad, good = excel_rows(workbook(HEADER, [A, "Ana", "", "", "x"], [B, "Bo"]))

    assert "has 5 cells, but the header names 3" in row_error(bad)
    assert good.to_job("b").name == "Bo"


# ── cells ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (50.0, "50"), (0.1 + 0.2, "0.3"), (12_345_678_901, "12345678901"), (-1.5, "-1.5"), (True, "TRUE"),
        (False, "FALSE"), (datetime.date(2026, 1, 31), "2026-01-31"),
        (datetime.datetime(2026, 1, 31, 12, 30), "2026-01-31 12:30:00"), (datetime.time(12, 30), "12:30:00"),
        ("0050", "0050"), ("'x", "'x"), ("a_x000D_b", "a\rb"),
    ],
)  # fmt: skip
def test_a_typed_cell_is_the_text_that_the_sheet_shows(value: object, text: str) -> None:
    """Numbers without a needless point, dates as ISO 8601."""
    [job] = jobs(excel_rows(workbook(HEADER, [A, "Ana", value])))

    assert job.metadata == {"note": text}


def test_a_number_of_excel_has_a_certain_decimal_sign() -> None:
    """Its cell is a number, not a text that may have a point between thousands."""
    [number, text] = excel_rows(workbook(["audio_url", "start_within_s"], [A, 1.234], [B, "1.234"]))

    assert number.to_job("b").start_within_s == 1.234
    assert "may be 1.234 or 1234" in row_error(text)


@pytest.mark.parametrize("key", [1234567890123456, 12345678901234500000])
def test_a_long_number_is_no_key(key: int) -> None:
    """Excel keeps 15 digits; a text has them all."""
    number, text = excel_rows(workbook(["audio_url", "key"], [A, key], [B, str(key)]))

    assert "format the column as text" in row_error(number)
    assert text.to_job("b").key == str(key)


def test_shared_texts_are_read_without_formats_and_phonetic_hints() -> None:
    """As Excel writes them: rich text in parts."""
    strings = (
        "<si><t>audio_url</t></si><si><t>name</t></si>"
        f"<si><t>{A}</t></si><si><r><t>An</t></r><r><rPr/><t>a &lt;3</t></r><rPh><t>x</t></rPh></si>"
    )
    pairs = [
        '<row><c t="s"><v>0</v></c><c t="s"><v>1</v></c></row>',
        '<row><c t="s"><v>2</v></c><c t="s"><v>3</v></c></row>',
    ]

    assert jobs(excel_rows(written(pairs, strings=strings)))[0].name == "Ana <3"


def test_cells_without_references_and_rows_without_numbers_are_read() -> None:
    """Some programs leave them out."""
    content = written([xml_row("audio_url", "name"), xml_row(), xml_row(A, "Ana")], before='<dimension ref="A1"/>')

    [row] = excel_rows(content)
    assert (row.number, row.to_job("b").name) == (3, "Ana")


def cell_error(cell: str, **parts: str) -> str:
    """Return the error of a row with this cell; '' if it is a job."""
    [row] = excel_rows(written([xml_row(*HEADER[:2]), xml_row(A, cells=cell)], **parts))
    return row.error


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#SPILL!", "#FUTURE!"])
def test_an_error_cell_rejects_its_row(error: str) -> None:
    """Also an error of a later release, and one that a formula results in."""
    assert cell_error(f'<c t="e"><v>{error}</v></c>').startswith("name: is the spreadsheet error #")
    assert cell_error(f'<c t="e"><f>A1</f><v>{error}</v></c>').startswith("name: is the spreadsheet error #")


def test_the_result_of_a_formula_is_read_if_it_is_certain() -> None:
    """It was calculated when the file was saved. An empty text is a result."""
    text, empty = '<c t="str"><f>A2&amp;"x"</f><v>Ana</v></c>', '<c t="str"><f>""</f><v></v></c>'

    assert (cell_error(text), cell_error(empty)) == ("", "")


@pytest.mark.parametrize(
    ("cell", "workbook_part"),
    [
        ("<c><f>1+1</f></c>", ""),
        ('<c><f t="shared" si="0"/></c>', ""),
        ("<c><f>1+1</f><v>0</v></c>", '<calcPr calcId="1" fullCalcOnLoad="1"/>'),
        ("<c><f>=1+1</f></c>", ""),
    ],
    ids=["no result", "shared", "calculated on opening", "two signs"],
)
def test_a_formula_without_a_certain_result_rejects_its_row(cell: str, workbook_part: str) -> None:
    """Programs that write files, as openpyxl and XlsxWriter, do not calculate; a blank or 0 would be ordered."""
    assert cell_error(cell, workbook_part=workbook_part).startswith("name: is a formula ('=")


def test_a_formula_that_openpyxl_wrote_is_not_a_blank_cell() -> None:
    """It has no result until a person opens the file in Excel."""
    [row] = excel_rows(workbook(HEADER, [A, '="A"&"na"']))

    assert row_error(row).startswith("name: is a formula")


@pytest.mark.parametrize("cell", ['<c t="n"><v>x</v></c>', "<c><v>nan</v></c>", '<c s="1"><v>99999999</v></c>'])
def test_a_number_or_date_that_is_none_rejects_its_row(cell: str) -> None:
    """Excel shows an error there."""
    assert cell_error(cell).startswith("name: is ")


# ── rows that are not certain ─────────────────────────────────────────────────────────────────────


def test_a_hidden_row_is_rejected() -> None:
    """A person who filters a sheet does not see what would be ordered."""
    book = openpyxl.load_workbook(io.BytesIO(workbook(HEADER, [A, "Ana"], [B, "Bo"], [C, "Cy"])))
    book.worksheets[0].row_dimensions[3].hidden = True

    first, hidden, last = excel_rows(saved(book))

    assert row_error(hidden) == "the row is hidden; show it (clear the filter), or delete it"
    assert [first.to_job("b").name, last.to_job("b").name] == ["Ana", "Cy"]


def test_rows_with_merged_cells_are_rejected() -> None:
    """Only the first of merged cells has the value; the rows below would be other jobs."""
    book = openpyxl.load_workbook(io.BytesIO(workbook(HEADER, [A, "Ana"], [B], [C, "Cy"], [A, "Ed"])))
    book.worksheets[0].merge_cells("B2:B3")
    book.worksheets[0].merge_cells("F4:F5")

    first, second, third, fourth = excel_rows(saved(book))

    assert "contains merged cells (B2:B3)" in row_error(first)
    assert "contains merged cells (B2:B3)" in row_error(second)
    assert [third.to_job("b").name, fourth.to_job("b").name] == ["Cy", "Ed"]


def test_a_merged_title_does_not_matter() -> None:
    """It is above the rows."""
    book = openpyxl.load_workbook(io.BytesIO(workbook(HEADER, [A, "Ana"])))
    book.worksheets[0].merge_cells("C1:D1")

    assert jobs(excel_rows(saved(book)))[0].name == "Ana"


def test_cells_and_rows_that_only_have_a_style_are_empty() -> None:
    """Also between rows with values."""
    book = openpyxl.load_workbook(io.BytesIO(workbook(HEADER, [A, "Ana"], [], [B, "Bo"])))
    for row in book.worksheets[0].iter_rows(1, 20, 1, 12):
        for cell in row:
            cell.fill = PatternFill("solid", fgColor="FF0000")

    assert [(row.number, row.to_job("b").name) for row in excel_rows(saved(book))] == [(2, "Ana"), (4, "Bo")]


def test_rejected_rows_that_were_saved_as_a_workbook_are_read_as_they_were() -> None:
    """Their guards are removed, as in CSV; line and reason are skipped."""
    content = workbook(["line", "reason", *HEADER], [7, "why", A, "'+1", "'@x"])

    assert [(job.name, job.metadata) for job in jobs(excel_rows(content))] == [("+1", {"note": "@x"})]


# ── size ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.endurance
def test_memory_stays_flat_in_a_long_sheet() -> None:
    """With texts in the rows and shared ones, and styled rows that are empty."""
    count = 2_500
    strings = "".join(f"<si><t>{'x' * 1_000} {number}</t></si>" for number in range(count))
    filled = (
        xml_row(f"{A}?{number}", cells=f'<c t="s"><v>{number}</v></c>{inline("y" * 1_000)}') for number in range(count)
    )
    content = written([xml_row(*HEADER), *filled, *['<row><c s="1"/></row>'] * 10_000], strings=strings)
    excel_rows(workbook(HEADER))  # imports
    tracemalloc.start()
    try:
        with RowReader(io.BytesIO(content)) as reader:
            names = sum(len(row.cells["name"]) > 1_000 for row in reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert names == count
    assert peak < 4_000_000


def test_rows_that_are_not_in_order_end_the_sheet() -> None:
    """None of them is lost without a word."""
    cells = [(HEADER, "1"), ((A, "Ana"), "2"), ((B, "Bo"), "2")]
    good, bad = excel_rows(written(xml_row(*texts, attributes=f'r="{number}"') for texts, number in cells))

    assert good.to_job("b").name == "Ana"
    assert "the rows of the sheet are not in order" in row_error(bad)


def test_a_row_that_is_too_long_ends_the_sheet() -> None:
    """It is not kept in memory, and the error says that nothing after it was read."""
    parsed = excel_rows(
        written([xml_row("audio_url", "name"), xml_row(A, "Ana"), xml_row(B, "x" * (9 * ROW_MAX)), xml_row(C)])
    )

    assert [row.number for row in parsed] == [2, 3]
    assert "more than 1,048,576 characters, and nothing after it was read" in row_error(parsed[1])


def test_a_part_that_unpacks_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is unpacked: of sheets and texts, and of the small parts that are read as a whole."""
    content = written([xml_row("audio_url"), *[xml_row(" " * 1_000)] * 3_000])
    monkeypatch.setattr("voicequeue.ingest.excel.workbook._STREAMED_MAX", 1_000_000)
    assert "at most 1,000,000 are read. Save the sheet as CSV UTF-8" in excel_error(content)

    large = written([xml_row("audio_url")], workbook_part=" " * 2**24)
    assert "damaged, or not as Excel writes it" in excel_error(large)


def test_declarations_in_a_workbook_are_refused() -> None:
    """They can expand to gigabytes."""
    declaration = b'<!DOCTYPE a [<!ENTITY b "ccc">]>'
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(HEADER))) as source, zipfile.ZipFile(content, "w") as target:
        for name in source.namelist():
            prolog = declaration if "workbook.xml" in name else b""
            target.writestr(name, prolog + source.read(name))

    assert "damaged, or not as Excel writes it" in excel_error(content.getvalue())


def test_a_damaged_workbook_is_an_error() -> None:
    """At any byte: an error of the file, or rows, but no other exception."""
    content = bytearray(workbook(HEADER, [A, "Ana"], [B, "Bo"]))
    started_at = time.monotonic()
    for place in range(0, len(content), 37):
        damaged = bytes(content[:place]) + b"\xff\0" + bytes(content[place + 2 :])
        try:
            excel_rows(damaged)
        except UnreadableFileError:
            continue
        assert time.monotonic() - started_at < 60


# ── resuming ──────────────────────────────────────────────────────────────────────────────────────


def test_reading_can_resume_after_any_row() -> None:
    """The remaining rows are the same, with the same numbers and merged cells."""
    book = openpyxl.load_workbook(io.BytesIO(workbook([], HEADER, [A, "Ana"], [], [B], [C, "Cy"], [A, "Ed"])))
    book.worksheets[0].merge_cells("B5:B6")
    content = saved(book)
    whole = RowReader(io.BytesIO(content))
    rows_and_places = [(row, whole.position) for row in whole]

    assert len(rows_and_places) == 4
    for place, (_, position) in enumerate(rows_and_places):
        rest = RowReader(io.BytesIO(content))
        rest.skip_to(position)
        assert [(row, rest.position) for row in rest] == rows_and_places[place + 1 :]
