"""The file of rejected rows: it opens in the program that wrote the input, and can be corrected and ingested."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook, load_workbook

from tests.security.inputs.test_spreadsheets import ATTACKS, SEPARATORS, formulas
from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.conftest import Command
from tests.unit.ingest.workbooks import workbook
from voicequeue import InvalidJobError, VoiceQueue
from voicequeue.cli.ingest.paths import IngestPaths
from voicequeue.cli.ingest.rejects import RejectsFile
from voicequeue.errors import Problem
from voicequeue.ingest.row import FileFormat, FileKind, Row
from voicequeue.ingest.row_reader import RowReader

GOOD = "https://a.example/1.wav"
ERROR = InvalidJobError([Problem("audio_url", "must be a URL")])


def write_rejects(folder: Path, written: FileFormat, *rows: Row) -> Path:
    """Write rejected rows of a file with the columns audio_url and name, and return the path."""
    with RejectsFile(IngestPaths(folder / "voices.csv"), ("audio_url", "name"), written) as rejects:
        for row in rows:
            rejects.add(row, ERROR)
        path = rejects.finish()
    assert path is not None
    return path


def row_of(name: str, *, line: int = 2, number: int = 2) -> Row:
    """Return a row with an invalid URL."""
    return Row(line, {"audio_url": "nowhere", "name": name}, None, number=number)


@pytest.mark.parametrize("delimiter", SEPARATORS)
@pytest.mark.parametrize("has_bom", [False, True])
def test_it_has_the_delimiter_and_the_mark_of_the_input(tmp_path: Path, delimiter: str, has_bom: bool) -> None:
    """So that the same program opens it; no cell is a formula, at any separator."""
    attacks = list(dict.fromkeys(map(str.strip, (*ATTACKS, "a,=1", 'a,"=1'))))
    rows = [row_of(text) for text in attacks]

    content = write_rejects(tmp_path, FileFormat(FileKind.CSV, delimiter, has_bom), *rows).read_bytes()

    assert content.startswith(b"\xef\xbb\xbf") == has_bom
    text = content.decode("utf-8-sig")
    assert text.startswith(delimiter.join(("row", "line", "reason", "audio_url", "name")) + "\r\n")
    assert formulas(text) == []
    specs = [row.cells["name"] for row in RowReader(io.BytesIO(content))]
    assert specs == attacks


def test_rows_are_numbered_as_a_spreadsheet_program_does_beside_lines(tmp_path: Path) -> None:
    """Rows with lyrics of several lines: a spreadsheet program counts rows, a text editor lines."""
    path = write_rejects(tmp_path, FileFormat(), row_of("a"), row_of("b", line=23, number=17), row_of("c", number=0))

    assert [(row["row"], row["line"]) for row in rejected(path)] == [("2", "2"), ("17", "23"), ("", "2")]


def test_rejected_rows_of_a_workbook_are_a_workbook_of_texts(tmp_path: Path) -> None:
    """It opens by double click in every locale; no cell is a formula or an error."""
    attacks = [*ATTACKS, "#N/A", "0,5", "a\x07b"]

    path = write_rejects(tmp_path, FileFormat(FileKind.EXCEL), *(row_of(text) for text in attacks))

    assert path == tmp_path / "voices.csv.rejected.xlsx"
    sheet = load_workbook(path).active
    assert sheet is not None
    cells = [cell for row in sheet.iter_rows() for cell in row]
    assert {cell.data_type for cell in cells if cell.value is not None} <= {"s", "inlineStr"}
    assert [cell.value for cell in cells[:5]] == ["row", "line", "reason", "audio_url", "name"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("delimiter", SEPARATORS)
def test_rejected_rows_are_corrected_under_one_name_until_none_is_left(
    command: Command, queue: VoiceQueue, working_folder: Path, delimiter: str
) -> None:
    """Each round replaces the file by the rows that are still wrong. The keys of corrected rows do not depend on it."""
    lines = [("audio_url", "name"), (GOOD, "x"), ("bad1", "Ana, -1"), ("bad2", "Bo")]
    file = write(working_folder / "voices.csv", *(delimiter.join(map(_quoted, line)) for line in lines))
    command("ingest", file, "--batch", "spring")
    path = working_folder / "voices.csv.rejected.csv"
    assert _format(path) == _format(file)

    for word, remaining in (("bad1", 1), ("bad2", 0)):
        path.write_bytes(path.read_bytes().replace(word.encode(), f"https://a.example/{word}.wav".encode()))
        corrected = path.read_bytes()
        output = command("ingest", path, "--batch", "spring", "--json").json()
        assert (output["new"], output["rejected"]) == (1, remaining)
        assert output["rejected_file"] == (str(path) if remaining else None)

    assert path.read_bytes() == corrected  # a source is never deleted
    assert sorted(working_folder.iterdir()) == [file, path]
    direct = write(working_folder / "direct.csv", "audio_url,name", 'https://a.example/bad1.wav,"Ana, -1"')
    assert command("ingest", direct, "--batch", "spring", "--json").json()["existing"] == 1
    assert queue.batch("spring").total == 3


def _quoted(cell: str) -> str:
    return f'"{cell}"' if set(cell) & set(SEPARATORS) else cell


def _format(path: Path) -> FileFormat:
    return RowReader(io.BytesIO(path.read_bytes())).format


def test_a_file_in_another_encoding_gets_rejected_rows_that_spreadsheet_programs_read(
    command: Command, working_folder: Path
) -> None:
    """UTF-8 with its mark, so that they are ingested without --encoding."""
    file = working_folder / "voices.csv"
    file.write_bytes("audio_url;name\nnowhere;Björn\n".encode("cp1252"))

    command("ingest", file, "--batch", "spring", "--encoding", "cp1252")

    content = (working_folder / "voices.csv.rejected.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    assert "Björn" in content.decode()


def test_rejected_rows_of_a_workbook_can_be_corrected_and_ingested(
    command: Command, queue: VoiceQueue, working_folder: Path
) -> None:
    """In the workbook beside it, under one name."""
    file = working_folder / "voices.xlsx"
    _save(file, [["audio_url", "name"], [GOOD, "x"], ["bad", "=1+1"], ["worse", "Bo"]])

    ended = command("ingest", file, "--batch", "spring", "--json")
    path = working_folder / "voices.xlsx.rejected.xlsx"
    assert (ended.code, ended.json()["rejected_file"]) == (1, str(path))
    header, *rows = _values(path)
    assert [row[3] for row in rows] == ["bad", "worse"]
    rows[1][3] = "https://a.example/2.wav"
    _save(path, [header, *rows])

    output = command("ingest", path, "--batch", "spring", "--json").json()

    assert (output["new"], output["rejected"], output["rejected_file"]) == (1, 1, str(path))
    assert [row[3] for row in _values(path)] == ["audio_url", "bad"]
    assert {job.spec.name for job in queue.jobs()} == {"x", "Bo"}
    assert sorted(working_folder.iterdir()) == [file, path]


@pytest.mark.parametrize("name", ["voices.csv", "voices.xlsx", "voices.json"])
def test_corrected_rows_join_to_the_rows_of_the_first_input(
    command: Command, queue: VoiceQueue, working_folder: Path, name: str
) -> None:
    """After any number of rejections; messages name both places."""
    urls = [GOOD, "bad1", "https://a.example/3.wav", "bad2", "bad3"]
    file = _save_urls(working_folder / name, urls)
    ending = Path(name).suffix if name.endswith("xlsx") else ".csv"
    path = file.with_name(f"{name}.rejected{ending}")
    command("ingest", file, "--batch", "spring")
    for word in ("bad1", "bad3", "bad2"):
        _replace(path, word, f"https://a.example/{word}.wav")
        checked = command("ingest", path, "--batch", "spring", "--dry-run").out
        command("ingest", path, "--batch", "spring")
        if word == "bad1":
            assert re.search(r"row 3\b.*, which is row \d.* of the original file: audio_url: must", checked), checked

    first = 1 if name.endswith("json") else 2
    source_rows = {job.spec.audio_url: job.source_row for job in queue.jobs()}
    assert source_rows == {
        url if "/" in url else f"https://a.example/{url}.wav": first + place for place, url in enumerate(urls)
    }


def _save_urls(path: Path, urls: list[str]) -> Path:
    if path.suffix == ".xlsx":
        _save(path, [["audio_url"], *([url] for url in urls)])
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"audio_url": url} for url in urls], indent=1))
    else:
        write(path, "audio_url", *urls)
    return path


def _replace(path: Path, word: str, text: str) -> None:
    if path.suffix == ".xlsx":
        _save(path, [[text if value == word else value for value in row] for row in _values(path)])
    else:
        path.write_bytes(path.read_bytes().replace(word.encode(), text.encode()))


def test_a_stopped_workbook_has_rejected_rows_to_open(command: Command, working_folder: Path) -> None:
    """Beside those that --resume continues; the end of the file deletes both."""
    file = working_folder / "voices.xlsx"
    _save(file, [["audio_url"], *[["bad"]] * 3, [GOOD]])

    output = command("ingest", file, "--batch", "spring", "--max-rejected", "1", "--json").json()

    assert [row[3] for row in _values(Path(output["rejected_file"]))] == ["audio_url", "bad", "bad", "bad"]
    assert command("ingest", file, "--batch", "spring", "--resume").code == 1
    assert sorted(path.name for path in working_folder.iterdir()) == ["voices.xlsx", "voices.xlsx.rejected.xlsx"]


def test_sheets_that_are_not_read_are_named_on_standard_error(command: Command, working_folder: Path) -> None:
    """Also for scripts: standard output stays one JSON object."""
    content = workbook(["audio_url"], ["https://recordings.example/a.wav"], title="Jan", Feb=[["audio_url"], ["x"]])
    (working_folder / "voices.xlsx").write_bytes(content)

    ended = command("ingest", "voices.xlsx", "--batch", "spring", "--json")

    note = json.loads(ended.err.splitlines()[0])["note"]
    assert note["message"] == "read sheet 'Jan'; not read: 'Feb' (--sheet NAME)"
    assert json.loads(ended.out)["new"] == 1


def _save(path: Path, rows: list[list[Any]]) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
        for cell in sheet[sheet.max_row]:
            cell.data_type = "s"
    book.save(path)


def _values(path: Path) -> list[list[Any]]:
    sheet = load_workbook(path).active
    assert sheet is not None
    return [list(row) for row in sheet.iter_rows(values_only=True)]
