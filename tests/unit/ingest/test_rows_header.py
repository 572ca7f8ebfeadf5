"""The header of a table: names as people write them, and errors that say what to change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.ingest.files import A, B, file, file_error, jobs, row_error, rows
from voicequeue.ingest.header import ALIASES, field_of
from voicequeue.ingest.row import JOB_COLUMNS, SONG_COLUMNS, ExtraColumns, ReadOptions, Row
from voicequeue.ingest.row_reader import RowReader

# ── names ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", [*JOB_COLUMNS, *SONG_COLUMNS])
def test_case_spaces_and_hyphens_of_a_name_do_not_matter(field: str) -> None:
    """Every field is recognized as people and programs write it."""
    words = field.split("_")

    for name in (field.upper(), " ".join(words).title(), "-".join(words), "".join(map(str.title, words)), f"{field}*"):
        assert field_of(name) == field


def test_an_alias_has_one_meaning() -> None:
    """No alias is listed for two fields, or is the name of another field."""
    aliases = [alias for names in ALIASES.values() for alias in names.split()]
    squashed = {field.replace("_", "") for field in (*JOB_COLUMNS, *SONG_COLUMNS)}

    assert len(aliases) == len({*aliases})
    assert squashed.isdisjoint(aliases)
    assert {*ALIASES} <= {*JOB_COLUMNS, *SONG_COLUMNS}


def test_the_documentation_lists_every_alias() -> None:
    """And no other name."""
    text = (Path(__file__).parents[3] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    table = text.partition("| column | aliases |\n|---|---|\n")[2].partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]

    documented = {name.strip("`"): {*re.sub(r"[^a-z0-9,]", "", names.lower()).split(",")} for name, names in lines}
    assert documented == {field: {*aliases.split()} for field, aliases in ALIASES.items()}


def test_usual_aliases_are_the_same_job_as_the_names_of_fields() -> None:
    """With the same key, so a renamed column is not paid twice."""
    aliases = "Audio URL;Voice Name;Song Title;Lyrics;Style;Model;Instrumental;Metadata.Artist"
    names = "audio_url;name;title;prompt;tags;mv;make_instrumental;metadata.Artist"
    cells = f"{A};Ana;T;la;folk;sonic-v5;no;Ana"

    assert jobs(rows(aliases, cells)) == jobs(rows(names, cells))


@pytest.mark.parametrize(
    ("name", "hint"), [("promt", "prompt"), ("URL", "audio_url"), ("Titel", "title"), ("audio_ulr", "audio_url")]
)
def test_an_unknown_name_is_answered_with_a_question(name: str, hint: str) -> None:
    """The closest column, or one that the name may mean."""
    assert f"{name!r} (did you mean {hint!r}?)" in file_error(f"persona_id,{name}", "p,x")


def test_two_columns_with_one_meaning_are_named() -> None:
    """Which of them is right is not certain."""
    assert file_error("audio_url,Style,Genre") == "columns 'Style' and 'Genre' both mean tags; rename or delete one"


def test_a_header_of_unknown_names_is_split_at_its_delimiter_and_asks_for_the_links() -> None:
    """Each column is named, and what to rename, though the file has no known name."""
    text = file_error("Sänger;Datei aus der Cloud;Notiz", "Ana;https://a.example/1.wav;x")

    assert text.startswith("no column is named audio_url; rename the one that contains the links")
    assert "unknown columns 'Sänger', 'Datei aus der Cloud', 'Notiz'" in text


@pytest.mark.parametrize("line", ["audio_url,name,title", " audio_url , name,title "])
def test_a_header_that_is_repeated_between_rows_is_named_as_such(line: str) -> None:
    """Lists that were joined have one at the beginning of each."""
    _, repeated, _ = rows("audio_url,name,title", f"{A},Ana,", line, f"{B},Bo,")

    assert row_error(repeated) == "repeats the header; delete the row"


def test_a_song_without_lyrics_is_explained_by_the_columns() -> None:
    """A person who fills in a sheet knows columns, not the modes of a model."""
    titled, voice, sung, instrumental = rows(
        "audio_url,title,tags,prompt,make_instrumental",
        f"{A},Lights,folk,,", f"{A},,,,", f"{A},Lights,,la,", f"{A},Lights,,,yes",
    )  # fmt: skip

    assert row_error(titled) == (
        "has title and tags, but no lyrics: fill in the column prompt (lyrics) or description, or write yes in "
        "make_instrumental or auto_lyrics; for a voice without a song, clear title and tags"
    )
    assert [row.to_job("b").song is None for row in (voice, sung, instrumental)] == [True, False, False]


# ── extra columns ─────────────────────────────────────────────────────────────────────────────────

EXTRA = ("audio_url,Artist,name,Mood", f"{A},Ana,a,sad")


def _extra(choice: ExtraColumns) -> list[Row]:
    return list(RowReader(file(*EXTRA), ReadOptions(extra_columns=choice)))


def test_unknown_columns_are_named_all_with_the_three_choices() -> None:
    """Nothing is enqueued."""
    text = file_error(*EXTRA)

    assert text.startswith("unknown columns 'Artist', 'Mood'. Rename or delete them, or pass --extra ignore")
    assert "--extra metadata" in text


def test_unknown_columns_can_be_ignored() -> None:
    """Their cells stay in the file of rejected rows, and errors in them do not matter."""
    [row] = _extra(ExtraColumns.IGNORE)
    [with_error] = RowReader(file(EXTRA[0], f"{A},#REF!,a,"), ReadOptions(extra_columns=ExtraColumns.IGNORE))

    assert (row.to_job("b").metadata, row.cells["Artist"]) == ({}, "Ana")
    assert with_error.to_job("b") == row.to_job("b")


def test_unknown_columns_can_be_metadata() -> None:
    """By their name as it is written."""
    [row] = _extra(ExtraColumns.METADATA)

    assert row.to_job("b").metadata == {"Artist": "Ana", "Mood": "sad"}


def test_a_column_that_becomes_metadata_may_not_be_there_already() -> None:
    """One of both would be lost."""
    with pytest.raises(ValueError, match=r"'metadata.Artist' and 'Artist' both mean metadata.Artist"):
        RowReader(file("audio_url,metadata.Artist,Artist"), ReadOptions(extra_columns=ExtraColumns.METADATA))


def test_the_choice_for_extra_columns_holds_for_json_too() -> None:
    """A field that no job has rejects its row, is left out, or is metadata."""
    line = f'{{"audio_url": "{A}", "Mood": "sad", "n": 3}}'
    [default] = rows(line)
    [ignored] = RowReader(file(line), ReadOptions(extra_columns=ExtraColumns.IGNORE))
    [kept] = RowReader(file(line), ReadOptions(extra_columns=ExtraColumns.METADATA))

    assert "Mood" in row_error(default)
    assert ignored.to_job("b").metadata == {}
    assert kept.to_job("b").metadata == {"Mood": "sad", "n": "3"}


# ── the place of the header ───────────────────────────────────────────────────────────────────────


def test_a_first_line_that_names_the_delimiter_is_followed() -> None:
    """Excel writes and reads `sep=`. It is a line, and no row."""
    for line in ("sep=;", '"sep=;"', "SEP=;"):
        [row] = rows(line, "audio_url;name", f"{A};Ana, Bo")
        assert (row.to_job("b").name, row.line, row.number) == ("Ana, Bo", 3, 2)


def test_blank_rows_before_the_header_are_skipped() -> None:
    """Empty lines, or delimiters alone, as spreadsheet programs write empty rows."""
    [row] = rows("", ";;", '"";', "audio_url;name", f"{A};Ana")

    assert (row.to_job("b").name, row.line, row.number) == ("Ana", 5, 5)


def test_a_title_above_the_header_is_pointed_out_by_line() -> None:
    """Also with other lines between them."""
    one = file_error("My voices", "audio_url,name", f"{A},Ana")
    more = file_error("My voices;;", "Spring 2026;;", "", "Audio URL;Name", f"{A};Ana")

    assert one == "line 1 is not a header, but line 2 looks like one; delete line 1 above it"
    assert more == "line 1 is not a header, but line 4 looks like one; delete lines 1 to 3 above it"


def test_columns_and_cells_that_are_empty_at_the_end_are_ignored() -> None:
    """Spreadsheet programs write them for columns that once were used."""
    [row] = rows("audio_url,name,,", f"{A},Ana,,,,, ")
    [short] = rows("audio_url,name,,", f"{A},Ana")

    assert row.to_job("b").name == short.to_job("b").name == "Ana"
    assert row.extra_cells == ()


@pytest.mark.parametrize("cells", [f"{A},Ana,,note", f"{A},Ana,note", f"{A},Ana,,,note"])
def test_a_value_in_a_column_without_a_name_rejects_its_row(cells: str) -> None:
    """It may belong to another column."""
    bad, good = rows("audio_url,name,,", cells, f"{B},Bo,,")

    assert f"has {cells.count(',') + 1} cells, but the header names 2" in row_error(bad)
    assert good.to_job("b").name == "Bo"


def test_a_value_under_an_empty_name_between_columns_rejects_its_row() -> None:
    """The error names the column by its place."""
    bad, good = rows("audio_url,,name", f"{A},x,Ana", f"{B},,Bo")

    assert row_error(bad) == "has 'x' in column 2, which has no name in the header; name it there, or delete column B"
    assert good.to_job("b").name == "Bo"


def test_a_header_cell_may_take_several_lines() -> None:
    """Spreadsheet programs wrap long names."""
    [row] = rows('"Audio', 'URL",name', f"{A},Ana")

    assert (row.to_job("b").audio_url, row.line, row.number) == (A, 3, 2)


# ── row numbers ───────────────────────────────────────────────────────────────────────────────────


def test_rows_have_the_number_that_a_spreadsheet_program_shows() -> None:
    """Blank lines count, cells of several lines count once, unreadable rows count."""
    parsed = rows("audio_url,name", f'{A},"two', 'lines"', "", f'{A},"bad" x', f"{B},Bo")

    assert [(row.line, row.number) for row in parsed] == [(2, 2), (5, 4), (6, 5)]
