"""Jobs from CSV: every usual way of writing it is read, and one bad row costs no other."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.unit.ingest.files import A, B, C, file, jobs, refused, rows, trouble
from voicequeue import VoiceJob
from voicequeue.ingest.row_reader import JOB_COLUMNS, SONG_COLUMNS, Rows

# ── CSV as people write it ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_usual_delimiter_is_found_in_the_header(delimiter: str) -> None:
    """Comma, semicolon, tab and pipe, whatever else stands in the cells."""
    lines = [["audio_url", "name", "metadata.first row: no"], [A, "Ana; Bo, Cy | Di", "1"]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(lines)

    [job] = jobs(rows(text.getvalue()))

    assert (job.audio_url, job.name, job.metadata) == (A, "Ana; Bo, Cy | Di", {"first row: no": "1"})


def test_one_column_needs_no_delimiter() -> None:
    """A bare list of recordings under its heading."""
    assert [job.audio_url for job in jobs(rows("audio_url", A, B))] == [A, B]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["unix", "windows", "old mac"])
def test_any_line_end_is_read(end: bytes) -> None:
    """Values carry no line end, and lines are counted as an editor counts them."""
    found = rows("audio_url,name", f"{A},Ana", f"{B},Bo", end=end)

    assert [(row.line, row.cells["name"]) for row in found] == [(2, "Ana"), (3, "Bo")]


def test_a_byte_order_mark_is_not_part_of_the_first_column() -> None:
    """Excel writes one."""
    assert jobs(rows(b"\xef\xbb\xbfaudio_url", A))[0].audio_url == A
    assert jobs(rows(b"\xef\xbb\xbf" + json.dumps({"audio_url": A}).encode()))[0].audio_url == A


def test_the_last_line_needs_no_end() -> None:
    """As many editors leave it."""
    assert len(rows("audio_url", A, B, end=b"\n")) == len(list(Rows(io.BytesIO(f"audio_url\n{A}\n{B}".encode()))))


def test_quoted_cells_may_hold_line_ends_delimiters_and_quotes() -> None:
    """Lyrics are read as they were written."""
    [row] = rows("audio_url,prompt", f'"{A}","[Verse]', 'she said ""Hi"", and', 'left"')

    song = row.job("spring").song

    assert song is not None
    assert song.prompt == '[Verse]\nshe said "Hi", and\nleft'


def test_lines_are_told_as_an_editor_counts_them() -> None:
    """A row is where it begins, after cells of many lines and after blank lines."""
    found = rows("audio_url,prompt", f'{A},"one', "two", 'three"', "", f'{B},"one', 'two"', f"{C},one")

    assert [row.line for row in found] == [2, 6, 8]


def test_blank_lines_are_no_rows() -> None:
    """Empty, of spaces, or of delimiters alone."""
    assert [row.line for row in rows("audio_url,name", "", "   ", ",", " , ", f"{A},Ana", "")] == [6]


def test_space_around_a_cell_does_not_count() -> None:
    """Also where only certain words are allowed."""
    [job] = jobs(rows("audio_url , priority, vocal_gender, prompt", f" {A} , high , f , la "))

    assert job.audio_url == A
    assert job.priority == "high"
    assert job.song is not None
    assert job.song.vocal_gender == "f"


def test_an_empty_cell_is_a_field_left_out() -> None:
    """So one file can hold voices with and without songs."""
    plain, sings = jobs(rows("audio_url,name,prompt,style_weight", f"{A},,,", f"{B},Bo,la,0.5"))

    assert plain == VoiceJob(audio_url=A, batch="spring").with_row_key()
    assert sings.song is not None
    assert sings.song.style_weight == 0.5


def test_a_row_may_end_early() -> None:
    """Cells that are missing at the end are empty ones."""
    assert jobs(rows("audio_url,name,title", A))[0].name is None


def test_every_column_of_a_job_and_its_song_can_be_given() -> None:
    """Flat beside each other, with metadata by name."""
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
    """Its own key where it has one, else one of its content: the same file again is the same jobs."""
    first, second = jobs(rows("audio_url,key", f"{A},mine", B))

    assert (first.batch, first.key) == ("spring", "mine")
    assert second.key == VoiceJob(audio_url=B, batch="spring").with_row_key().key


# ── files that are refused as a whole ─────────────────────────────────────────────────────────────


def test_an_unknown_column_is_refused_by_name_before_any_row() -> None:
    """Nothing of the file is taken, and the text lists what is allowed."""
    text = refused("audio_url,promt,Title", f"{A},la,T")

    assert "'promt', 'Title'" in text
    assert all(column in text for column in (*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"))


def test_of_very_many_wrong_columns_the_first_are_named_and_the_others_counted() -> None:
    """Unknown ones and repeated ones: the answer stays short, and is there at once."""
    unknown = [f"column{number}" for number in range(5_000)]
    known = [f"metadata.{number}" for number in range(1_500)]

    for columns in (unknown, [*known, *known]):
        reason = refused(",".join(columns))
        assert " more" in reason
        assert len(reason) < 3_000


def test_a_column_that_is_there_twice_is_refused_by_name() -> None:
    """Nobody knows which of the two is meant."""
    assert "'name'" in refused("audio_url,name,name", f"{A},Ana,Bo")


@pytest.mark.parametrize("header", ["name,prompt", "metadata.audio_url", "line,reason"])
def test_a_file_without_recordings_and_personas_is_refused(header: str) -> None:
    """Not one row of it could be a job."""
    assert refused(header) == "a column audio_url or persona_id is required"


def test_metadata_needs_a_name() -> None:
    """`metadata.` alone is no column."""
    assert "'metadata.'" in refused("audio_url,metadata.", f"{A},1")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"   \n", b"\xef\xbb\xbf"], ids=["nothing", "lines", "space", "BOM"])
def test_an_empty_file_is_refused(content: bytes) -> None:
    """It says that the header is missing."""
    assert "empty" in refused(content)


def test_a_header_alone_is_a_file_without_rows() -> None:
    """There is nothing to do, which is no error."""
    assert rows("audio_url,name") == []


def test_a_file_without_a_header_is_told_so_and_not_quoted() -> None:
    """Its first recording may carry a token in its URL."""
    text = refused(f"{A}?token=s3cr3t,Ana", f"{B},Bo")

    assert "first line must name the columns" in text
    assert "s3cr3t" not in text


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_in_utf16_is_refused(codec: str) -> None:
    """As some spreadsheets save "Unicode text"; with its mark, the text says what it is."""
    text = refused(f"audio_url\n{A}\n".encode(codec))

    assert codec != "utf-16" or "UTF-16" in text


def test_a_json_array_is_refused_with_what_to_do() -> None:
    """It could not be read as a stream."""
    assert "JSON object on a line of its own" in refused(json.dumps([{"audio_url": A}]))


def test_what_is_no_text_at_all_is_refused_in_a_few_words() -> None:
    """A recording given instead of the list of recordings."""
    assert len(refused(bytes(range(1, 256)) * 1_000)) < 2_000


# ── rows that are refused ─────────────────────────────────────────────────────────────────────────


def test_too_many_cells_are_refused_and_not_cut() -> None:
    """A delimiter in an unquoted cell moves every cell after it."""
    bad, good = rows("audio_url,prompt", f"{A},la, la", f"{B},la")

    assert "has 3 cells, but the header names 2" in trouble(bad)
    assert good.job("spring").audio_url == B


def test_cells_that_are_empty_do_not_excuse_too_many() -> None:
    """The row may be cut anywhere; a person has to look."""
    assert "has 4 cells" in trouble(rows("audio_url,name", f"{A},Ana,,")[0])


def test_bytes_that_are_not_utf8_cost_their_own_row_only() -> None:
    """The rows around it are taken; the error names the field."""
    first, bad, last = rows("audio_url,name", f"{A},Ana", B.encode() + b",Bj\xf6rn", f"{C},Cy")

    assert trouble(bad).startswith("name: ")
    assert [first.job("b").name, last.job("b").name] == ["Ana", "Cy"]


def test_nul_bytes_cost_their_own_row_only() -> None:
    """They are a sign of a broken file, and no lyrics."""
    first, bad, last = rows("audio_url,name", f"{A},Ana", f"{B},B\0o", f"{C},Cy")

    assert "NUL" in trouble(bad)
    assert [first.job("b").name, last.job("b").name] == ["Ana", "Cy"]


def test_a_quote_that_is_never_closed_does_not_become_lyrics() -> None:
    """The rows that it swallowed are named by their lines, and nothing of them is sung."""
    first, bad = rows("audio_url,prompt", f"{A},la", f'{B},"la', f"{C},la")

    assert first.job("b").audio_url == A
    assert (bad.line, bad.cells) == (3, {})
    assert "lines 3 to 4" in trouble(bad)


def test_text_after_a_closing_quote_is_refused() -> None:
    """The quote was meant to be doubled, or is not in its place."""
    bad, good = rows("audio_url,prompt", f'{A},"la" la', f"{B},la")

    assert "not readable as CSV" in trouble(bad)
    assert (good.line, good.job("b").audio_url) == (3, B)


def test_a_cell_of_endless_length_is_refused() -> None:
    """It is not held in memory; the rows after it are read again."""
    bad, good = rows("audio_url,prompt", f"{A},{'x' * 200_000}", f"{B},la")

    assert "not readable as CSV" in trouble(bad)
    assert (good.line, good.job("b").audio_url) == (3, B)


def test_a_problem_of_the_song_is_told_by_its_column() -> None:
    """The file has a column `title`, and no `song.title`."""
    [row] = rows("audio_url,prompt,title,metadata.a", f"{A},la,{'x' * 81},{'x' * 9_000}")

    assert [problem.partition(":")[0] for problem in trouble(row).split("; ")][:2] == ["title", "metadata"]


# ── going on in the middle ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines",
    [
        ["audio_url,prompt", f'{A},"two', 'lines"', "", f"{B},la", f'{C},"cut', "never closed"],
        ['{"audio_url": "a"}', "", "{", '{"audio_url": "b"}'],
    ],
    ids=["CSV", "JSON Lines"],
)
def test_reading_goes_on_after_any_row(lines: list[str]) -> None:
    """With the lines read until then one has the same rows as without an interruption, by their own numbers."""
    whole = Rows(file(*lines))
    read = [(row, whole.lines) for row in whole]

    for place, (_, lines_read) in enumerate(read):
        rest = Rows(file(*lines))
        rest.pass_over(lines_read)
        assert [(row, rest.lines) for row in rest] == read[place + 1 :]
