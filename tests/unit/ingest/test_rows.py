"""Jobs from CSV: every common dialect is read, and an invalid row affects no other row."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from tests.unit.ingest.files import A, B, C, file, file_error, jobs, piped, row_error, rows
from voicequeue import VoiceJob
from voicequeue.ingest.row import JOB_COLUMNS, SONG_COLUMNS
from voicequeue.ingest.row_reader import RowReader

# ── CSV dialects ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_common_delimiter_is_detected_from_the_header(delimiter: str) -> None:
    """Comma, semicolon, tab and pipe, for any content of the cells."""
    lines = [["audio_url", "name", "metadata.first row: no"], [A, "Ana; Bo, Cy | Di", "1"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(lines)

    [job] = jobs(rows(text.getvalue()))

    assert (job.audio_url, job.name, job.metadata) == (A, "Ana; Bo, Cy | Di", {"first row: no": "1"})


def test_one_column_needs_no_delimiter() -> None:
    """A plain list of recordings under its header."""
    assert [job.audio_url for job in jobs(rows("audio_url", A, B))] == [A, B]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["unix", "windows", "old mac"])
def test_any_line_end_is_read(end: bytes) -> None:
    """Values contain no line end, and lines are counted as in an editor."""
    parsed = rows("audio_url,name", f"{A},Ana", f"{B},Bo", end=end)

    assert [(row.line, row.cells["name"]) for row in parsed] == [(2, "Ana"), (3, "Bo")]


def test_a_byte_order_mark_is_not_part_of_the_first_column() -> None:
    """Excel writes one."""
    assert jobs(rows(b"\xef\xbb\xbfaudio_url", A))[0].audio_url == A
    assert jobs(rows(b"\xef\xbb\xbf" + json.dumps({"audio_url": A}).encode()))[0].audio_url == A


def test_quoted_cells_may_hold_line_ends_delimiters_and_quotes() -> None:
    """Lyrics are read unchanged."""
    [row] = rows("audio_url,prompt", f'"{A}","[Verse]', 'she said ""Hi"", and', 'left"')

    song = row.to_job("spring").song

    assert song is not None
    assert song.prompt == '[Verse]\nshe said "Hi", and\nleft'


def test_line_numbers_are_those_of_an_editor() -> None:
    """A row has the number of its first line, also after multi-line cells and blank lines."""
    parsed = rows("audio_url,prompt", f'{A},"one', "two", 'three"', "", f'{B},"one', 'two"', f"{C},one")

    assert [row.line for row in parsed] == [2, 6, 8]


def test_blank_lines_are_skipped() -> None:
    """Empty, of spaces, or of delimiters alone."""
    assert [row.line for row in rows("audio_url,name", "", "   ", ",", " , ", f"{A},Ana", "")] == [6]


def test_whitespace_around_a_cell_is_ignored() -> None:
    """Also in columns with fixed values."""
    [job] = jobs(rows("audio_url , priority, vocal_gender, prompt", f" {A} , high , f , la "))

    assert job.audio_url == A
    assert job.priority == "high"
    assert job.song is not None
    assert job.song.vocal_gender == "f"


def test_an_empty_cell_omits_the_field() -> None:
    """So one file can contain voices with and without songs."""
    plain, with_song = jobs(rows("audio_url,name,prompt,style_weight", f"{A},,,", f"{B},Bo,la,0.5"))

    assert plain == VoiceJob(audio_url=A, batch="spring").with_row_key()
    assert with_song.song is not None
    assert with_song.song.style_weight == 0.5


def test_every_field_of_a_job_and_its_song_has_a_column() -> None:
    """Side by side, with metadata by name."""
    cells = {
        "audio_url": A, "name": "Ana", "key": "k", "priority": "bulk", "callback_url": B, "max_credits": "20",
        "start_within_s": "60.5", "voice": "ana", "reuse": "yes", "audio_sha256": "0a" * 32,
        "mv": "sonic-v5", "custom_mode": "true", "title": "T", "prompt": "la", "description": "d", "tags": "folk",
        "negative_tags": "loud", "make_instrumental": "false", "auto_lyrics": "no", "vocal_gender": "f",
        "style_weight": "0.1", "weirdness_constraint": "0.2", "audio_weight": "1", "metadata.artist": "ana",
    }  # fmt: skip
    assert {*cells, "persona_id"} == {*JOB_COLUMNS, *SONG_COLUMNS, "metadata.artist"}

    [job] = jobs(rows(",".join(cells), ",".join(cells.values())))

    assert (job.key, job.priority, job.callback_url, job.max_credits) == ("k", "bulk", B, 20)
    assert (job.metadata, job.start_within_s) == ({"artist": "ana"}, 60.5)
    assert (job.voice, job.reuse, job.audio_sha256) == ("ana", True, "0a" * 32)
    assert job.song is not None
    assert job.song.model_dump() == {
        "mv": "sonic-v5", "custom_mode": True, "title": "T", "prompt": "la", "description": "d", "tags": "folk",
        "negative_tags": "loud", "make_instrumental": False, "auto_lyrics": False, "vocal_gender": "f",
        "style_weight": 0.1, "weirdness_constraint": 0.2, "audio_weight": 1.0,
    }  # fmt: skip


def test_a_row_belongs_to_the_batch_and_has_a_key() -> None:
    """Its own key if it has one, otherwise one derived from its content: ingesting the file again gives the same
    jobs."""
    first, second = jobs(rows("audio_url,key", f"{A},mine", f"{B},"))

    assert (first.batch, first.key) == ("spring", "mine")
    assert second.key == VoiceJob(audio_url=B, batch="spring").with_row_key().key


def test_the_key_of_a_row_of_plain_csv_never_changes() -> None:
    """A file that was ingested with an earlier release is not paid again."""
    header = "audio_url,title,prompt,tags,style_weight,make_instrumental,max_credits,priority,metadata.n"
    with_song, voice = jobs(rows(header, f'{A},T,"la', 'la",folk,0.50,yes,50,high,007', f"{A},,,,,,,,"))

    assert (with_song.key, voice.key) == ("row-sn3oba6k5tsov32q", "row-67sfm556jzatp4di")


# ── rejected files ────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_column_is_rejected_by_name_before_any_row() -> None:
    """Nothing of the file is enqueued, and the error lists the allowed columns."""
    text = file_error("audio_url,promt,Mood", f"{A},la,T")

    assert "'promt' (did you mean 'prompt'?), 'Mood'" in text
    assert all(column in text for column in (*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"))


def test_many_wrong_columns_are_named_in_part_and_counted() -> None:
    """Unknown and repeated ones: the error is short and fast."""
    unknown = [f"column{number}" for number in range(5_000)]
    repeated = [f"metadata.{number}" for number in range(1_500)]

    for columns in (unknown, [*repeated, *repeated]):
        reason = file_error(",".join(columns))
        assert " more" in reason
        assert len(reason) < 3_000


def test_a_repeated_column_is_rejected_by_name() -> None:
    """It would be ambiguous."""
    assert "'name'" in file_error("audio_url,name,name", f"{A},Ana,Bo")


@pytest.mark.parametrize("header", ["name,prompt", "metadata.audio_url", "line,reason"])
def test_a_file_without_recordings_and_personas_is_rejected(header: str) -> None:
    """None of its rows could be a job. The error says which column to rename."""
    text = file_error(header)

    assert text.startswith("no column is named audio_url; rename the one that contains the links")
    assert "line" in header or all(f"'{name}'" in text for name in header.split(","))


def test_metadata_needs_a_name() -> None:
    """`metadata.` alone is no column."""
    assert "'metadata.'" in file_error("audio_url,metadata.", f"{A},1")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"   \n", b"\xef\xbb\xbf"], ids=["nothing", "lines", "space", "BOM"])
def test_an_empty_file_is_rejected(content: bytes) -> None:
    """The error says that the header is missing."""
    assert "empty" in file_error(content)


def test_a_header_alone_is_a_file_without_rows() -> None:
    """There is nothing to do, which is no error."""
    assert rows("audio_url,name") == []


def test_the_error_of_a_file_without_a_header_quotes_no_content() -> None:
    """Its first recording may have a token in its URL."""
    text = file_error(f"{A}?token=s3cr3t,Ana", f"{B},Bo")

    assert "first line must name the columns" in text
    assert "s3cr3t" not in text


def test_the_error_of_a_binary_file_is_short() -> None:
    """For example a recording instead of the list of recordings."""
    assert len(file_error(bytes(range(1, 256)) * 1_000)) < 2_000


# ── rejected rows ─────────────────────────────────────────────────────────────────────────────────


def test_surplus_cells_are_rejected_and_not_dropped() -> None:
    """A delimiter in an unquoted cell shifts every cell after it."""
    bad, good = rows("audio_url,prompt", f"{A},la, la", f"{B},la")

    assert "has 3 cells, but the header names 2" in row_error(bad)
    assert good.to_job("spring").audio_url == B


def test_invalid_utf8_in_a_pipe_rejects_only_its_own_row() -> None:
    """A pipe cannot be checked as a whole. The rows around it are accepted; the error names the field."""
    first, bad, last = piped("audio_url,name", f"{A},Ana", B.encode() + b",Bj\xf6rn", f"{C},Cy")

    assert row_error(bad).startswith("name: ")
    assert [first.to_job("b").name, last.to_job("b").name] == ["Ana", "Cy"]


def test_nul_bytes_reject_only_their_own_row() -> None:
    """They indicate a corrupt file."""
    first, bad, last = rows("audio_url,name", f"{A},Ana", f"{B},B\0o", f"{C},Cy")

    assert "NUL" in row_error(bad)
    assert [first.to_job("b").name, last.to_job("b").name] == ["Ana", "Cy"]


def test_an_unclosed_quote_does_not_become_lyrics() -> None:
    """The error names the lines of the swallowed rows, and none of them is enqueued."""
    first, bad = rows("audio_url,prompt", f"{A},la", f'{B},"la', f"{C},la")

    assert first.to_job("b").audio_url == A
    assert (bad.line, bad.cells) == (3, {})
    assert "lines 3 to 4" in row_error(bad)


def test_text_after_a_closing_quote_is_rejected() -> None:
    """The quote should be doubled, or is misplaced."""
    bad, good = rows("audio_url,prompt", f'{A},"la" la', f"{B},la")

    assert "not readable as CSV" in row_error(bad)
    assert (good.line, good.to_job("b").audio_url) == (3, B)


def test_an_overlong_cell_is_rejected() -> None:
    """It is not kept in memory; the rows after it are read."""
    bad, good = rows("audio_url,prompt", f"{A},{'x' * 200_000}", f"{B},la")

    assert "not readable as CSV" in row_error(bad)
    assert (good.line, good.to_job("b").audio_url) == (3, B)


def test_an_error_in_the_song_names_its_column() -> None:
    """The file has a column `title`, and no `song.title`."""
    [row] = rows("audio_url,prompt,title,metadata.a", f"{A},la,{'x' * 81},{'x' * 9_000}")

    assert re.findall(r"(?:^|; )([\w.]+): ", row_error(row)) == ["title", "metadata"]


# ── resuming ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines",
    [
        ["audio_url,prompt", f'{A},"two', 'lines"', "", f"{B},la", f'{C},"cut', "never closed"],
        ['{"audio_url": "a"}', "", "{", '{"audio_url": "b"}'],
    ],
    ids=["CSV", "JSON Lines"],
)
def test_reading_can_resume_after_any_row(lines: list[str]) -> None:
    """From the number of lines read so far, the remaining rows are the same as without an interruption, with the same
    line numbers."""
    whole = RowReader(file(*lines))
    rows_and_lines = [(row, whole.position) for row in whole]

    for place, (_, position) in enumerate(rows_and_lines):
        rest = RowReader(file(*lines))
        rest.skip_to(position)
        assert [(row, rest.position) for row in rest] == rows_and_lines[place + 1 :]
