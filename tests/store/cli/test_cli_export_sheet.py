"""The command `export` for spreadsheet programs: results join back to the rows that were ingested."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from tests.store.conftest import Command
from tests.store.life import CLIPS, job_with_song
from tests.support.jobs import voice, voice_with_song
from voicequeue import Song, VoiceQueue
from voicequeue.cli.export import sheet
from voicequeue.ingest import export_columns
from voicequeue.ingest.cells import guard, unguard
from voicequeue.ingest.row import JOB_COLUMNS, SONG_COLUMNS
from voicequeue.ingest.values import converter
from voicequeue.storage.job_store import JobStore

FORMATS = [
    ["--excel"],
    ["--excel", "--delimiter", ";"],
    ["--excel", "--delimiter", "tab"],
    ["-o", "jobs.xlsx"],
    ["--excel", "-o", "JOBS.XLSX"],
    ["--format", "xlsx", "-o", "jobs.xlsx"],
]
ROWS = (
    "audio_url,name,title,prompt,style_weight,make_instrumental,metadata.customer,metadata.note\n"
    'https://recordings.example/a.wav,Ana,"First, take","[Verse]\nla la",0.5,no,0017,a;=1+1\n'
    "https://recordings.example/b.wav,Åse,,,,,0018,\n"
)


def exported(command: Command, folder: Path, options: list[str]) -> list[dict[str, Any]]:
    """Return the rows of an export, as a spreadsheet program shows them; empty cells are left out."""
    ended = command("export", *options)
    assert (ended.code, ended.err) == (0, "")
    if "-o" in options:
        table: list[Any] = list(load_workbook(folder / options[-1])["jobs"].iter_rows(values_only=True))
    else:
        delimiter = {";": ";", "tab": "\t"}.get(options[-1], ",")
        assert ended.out.startswith("\ufeff")
        table = list(csv.reader(io.StringIO(ended.out.removeprefix("\ufeff")), delimiter=delimiter))
    header, *rows = table
    return [
        {str(name): value for name, value in zip(header, row, strict=True) if value not in (None, "")} for row in rows
    ]


@pytest.mark.parametrize("options", FORMATS, ids=" ".join)
def test_the_results_join_back_to_the_rows_of_the_input(
    command: Command, working_folder: Path, options: list[str]
) -> None:
    """Every column of the input is a column of the export, with its value; results are beside it."""
    (working_folder / "voices.csv").write_text(ROWS, encoding="utf-8")
    command("ingest", "voices.csv", "--batch", "spring")

    first, second = exported(command, working_folder, options)

    assert (first["title"], first["prompt"], first["style_weight"], first["make_instrumental"]) == (
        "First, take", "[Verse]\nla la", 0.5 if "-o" in options else "0,5" if ";" in options else "0.5", "no",
    )  # fmt: skip
    assert (first["metadata.customer"], second["metadata.customer"]) == ("0017", "0018")
    assert first["metadata.note"] == ("a;=1+1" if "-o" in options else "a;'=1+1")
    assert (first["name"], second["name"], second["state"]) == ("Ana", "Åse", "queued")
    assert not {"title", "prompt", "metadata.note"} & second.keys()


@pytest.mark.parametrize(
    ("number", "delimiter", "text"),
    [(0.5, ";", "0,5"), (1.234, ";", "1,2340"), (1.234, ",", "1.2340"), (151.0, ";", "151,0"), (0.5, "\t", "0.5")],
)
def test_a_number_is_written_as_programs_with_this_delimiter_read_it(number: float, delimiter: str, text: str) -> None:
    """German Excel expects ; between cells and a decimal comma, and `ingest` reads the number back."""
    file = io.StringIO()
    sheet.write_csv(("start_within_s", "name"), [[number, "a"]], file, delimiter)
    convert = converter("start_within_s")

    assert file.getvalue().splitlines()[1] == f"{text}{delimiter}a"
    assert convert is not None
    assert float(convert(text)) == number


@pytest.mark.parametrize("options", FORMATS, ids=" ".join)
def test_an_export_has_the_row_of_each_job(
    command: Command, queue: VoiceQueue, working_folder: Path, options: list[str]
) -> None:
    """The number that the caller's file had, so that a lookup by row finds the result; also in JSON."""
    queue.enqueue_many([voice(key=f"k{row}", source_row=row) for row in (7, 3)])

    rows = exported(command, working_folder, options)
    lines = [json.loads(line) for line in command("export", "--format", "jsonl").out.splitlines()]
    plain = list(csv.DictReader(io.StringIO(command("export").out)))

    assert {str(row["key"]): int(row["row"]) for row in rows} == {"k7": 7, "k3": 3}
    assert {line["key"]: line["source_row"] for line in lines} == {"k7": 7, "k3": 3}
    assert {row["key"]: row["row"] for row in plain} == {"k7": "7", "k3": "3"}


def test_an_export_reads_back_as_the_same_jobs(command: Command, working_folder: Path, queue: VoiceQueue) -> None:
    """The columns of the input, ingested into the same batch, are existing jobs: nothing is paid again."""
    (working_folder / "voices.csv").write_text(ROWS.replace(";=1+1", ""), encoding="utf-8")
    command("ingest", "voices.csv", "--batch", "spring")
    queue.enqueue(
        voice_with_song(batch="spring", key="two", songs=(Song(prompt="la"), Song(description="calm")), song=None)
    )

    rows = exported(command, working_folder, ["--excel"])
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if _is_input(name)]
    with (working_folder / "again.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    counts = command("ingest", "again.csv", "--batch", "spring", "--json").json()

    assert (counts["new"], counts["existing"], counts["rejected"]) == (0, 4, 0)


@pytest.mark.parametrize(
    "options", [["--excel", "-o", "x.csv"], ["--excel", "--delimiter", ";", "-o", "x.csv"], ["-o", "x.xlsx"]]
)
def test_a_whole_export_reads_back_as_the_same_jobs(
    command: Command, queue: VoiceQueue, working_folder: Path, options: list[str]
) -> None:
    """Also with texts that look like formulas; the rows of the jobs stay those of the first file."""
    (working_folder / "voices.csv").write_text(ROWS, encoding="utf-8")
    command("ingest", "voices.csv", "--batch", "spring")
    assert command("export", "--batch", "spring", *options).code == 0

    counts = command("ingest", options[-1], "--batch", "spring", "--extra", "ignore", "--json").json()

    assert (counts["new"], counts["existing"], counts["rejected"]) == (0, 2, 0)
    assert sorted((job.source_row, job.spec.name) for job in queue.jobs()) == [(2, "Ana"), (3, "Åse")]


def _is_input(name: str) -> bool:
    return name in (*JOB_COLUMNS, *SONG_COLUMNS) or name.startswith("metadata.")


@pytest.mark.parametrize("options", FORMATS, ids=" ".join)
@pytest.mark.parametrize(
    "text", ["=HYPERLINK(1)", "+1", "@SUM(1)", "a;=1+1", "a\t=1+1", "#N/A", "x" * 40_000, "a\x1bb\uffff"]
)
def test_no_cell_of_an_export_for_spreadsheets_is_a_formula_or_unreadable(
    command: Command, store: JobStore, working_folder: Path, options: list[str], text: str
) -> None:
    """Titles are untrusted, and so are names of metadata."""
    job_with_song(store, (replace(CLIPS[0], title=text),), metadata={text[:100]: text[:100]})

    [row] = exported(command, working_folder, options)

    assert len(row["song_1_title"]) <= 32_767
    if "-o" in options:
        cells = [cell for line in load_workbook(working_folder / options[-1])["jobs"].iter_rows() for cell in line]
        assert {cell.data_type for cell in cells if isinstance(cell.value, str)} == {"s"}
    else:
        assert all(guard(unguard(cell)) == cell for cell in (*row, *row.values()))


def test_metadata_beyond_the_columns_is_kept_in_one_cell(
    command: Command, queue: VoiceQueue, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many names there are, nothing is lost, and memory stays constant."""
    monkeypatch.setattr(export_columns, "METADATA_COLUMNS_MAX", 2)
    queue.enqueue_many([voice(key=f"k{n}", metadata={f"n{n}": str(n), "all": "1"}) for n in range(4)])

    rows = {row["key"]: row for row in exported(command, working_folder, ["--excel"])}

    assert {name for row in rows.values() for name in row if "meta" in name} == {
        *("metadata.all", "metadata.n0", "more_metadata")
    }
    assert [json.loads(rows[f"k{n}"].get("more_metadata", "{}")) for n in range(4)] == [
        {}, {"n1": "1"}, {"n2": "2"}, {"n3": "3"},
    ]  # fmt: skip


def test_every_song_of_a_job_has_columns(command: Command, store: JobStore, working_folder: Path) -> None:
    """A job with a late result can have more than two songs, and all were paid for."""
    job_with_song(store, tuple(replace(CLIPS[0], clip_id=f"c-{n}") for n in range(3)))

    [row] = exported(command, working_folder, ["--excel"])

    assert [row[f"song_{number}_clip_id"] for number in (1, 2, 3)] == ["c-0", "c-1", "c-2"]


def test_a_workbook_continues_on_further_sheets(
    command: Command, queue: VoiceQueue, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sheet has at most 1,048,576 rows, its header included."""
    monkeypatch.setattr(sheet, "SHEET_ROWS_MAX", 3)
    queue.enqueue_many([voice(key=f"k{n}") for n in range(5)])
    command("export", "-o", "jobs.xlsx")

    workbook = load_workbook(working_folder / "jobs.xlsx")
    assert [(name, workbook[name].max_row) for name in workbook.sheetnames] == [
        ("jobs", 3),
        ("jobs 2", 3),
        ("jobs 3", 2),
    ]


@pytest.mark.parametrize("options", FORMATS, ids=" ".join)
def test_an_export_of_no_jobs_has_its_header(command: Command, working_folder: Path, options: list[str]) -> None:
    """It opens as an empty table."""
    assert exported(command, working_folder, [*options[:-1], options[-1]]) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--format", "xlsx"], "name it with --output"),
        (["--format", "xlsx", "-o", "jobs.csv"], "name it with --output"),
        (["--format", "csv", "-o", "jobs.xlsx"], "the name of an Excel file"),
        (["--json", "-o", "jobs.xlsx"], "the name of an Excel file"),
        (["--excel", "--json"], "not JSON Lines"),
        (["--delimiter", "x"], "must be a comma"),
        (["-o", "nosuchfolder/jobs.xlsx"], "No such file"),
    ],
)
def test_contradicting_options_are_rejected(
    command: Command, working_folder: Path, options: list[str], reason: str
) -> None:
    """Exit code 2, with the cure, and no file."""
    ended = command("export", *options)

    assert ended.code == 2
    assert reason in " ".join(ended.err.replace("│", " ").split())
    assert list(working_folder.iterdir()) == []


@pytest.mark.endurance
@pytest.mark.parametrize("name", ["jobs.csv", "jobs.xlsx"])
def test_an_export_for_spreadsheets_takes_constant_memory(store: JobStore, working_folder: Path, name: str) -> None:
    """The peak does not grow with the number of jobs."""
    job = job_with_song(store, metadata={"a": "x" * 4_000})

    def peak(count: int) -> int:
        jobs: Iterator[Any] = (replace(job, id=f"{number:016}") for number in range(count))
        tracemalloc.start()
        with sheet.temporary_rows() as spool, (working_folder / name).open("wb") as file:
            names, rows = sheet.collected(jobs, spool, first=sheet.CSV_FIRST)
            if name.endswith("xlsx"):
                sheet.write_excel(names, rows, file)
            else:
                with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
                    sheet.write_csv(names, rows, text, ",")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(5)  # imports and caches
    assert peak(400) < peak(40) + 500_000  # bytes; the records of 360 jobs take 2,000,000
