"""Values as spreadsheet programs write them, and cells that never become a job."""

from __future__ import annotations

import json

import pytest

from tests.unit.ingest.files import A, B, file, jobs, row_error, rows
from voicequeue import VoiceJob
from voicequeue.ingest.row import JOB_COLUMNS, SONG_COLUMNS, ReadOptions
from voicequeue.ingest.row_reader import RowReader
from voicequeue.ingest.values import converter


def cell(column: str, text: str) -> VoiceJob:
    """Return the job of a row with this cell."""
    [job] = jobs(rows(f"audio_url;prompt;{column}", f"{A};la;{text}"))
    return job


# ── numbers and words ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "weight"),
    [("0,5", 0.5), ("0.50", 0.5), ("50 %", 0.5), ("50%", 0.5), ("12,5\u00a0%", 0.125), ("1.0", 1.0), ("'0.5", 0.5),
     ("0,500", 0.5), (",5", 0.5), ("7%", 0.07), ("1", 1.0)],
)  # fmt: skip
def test_a_weight_is_read_as_spreadsheets_write_it(text: str, weight: float) -> None:
    """Decimal commas, percent, and the apostrophe that marks a text."""
    song = cell("style_weight", text).song

    assert song is not None
    assert song.style_weight == weight


@pytest.mark.parametrize(
    ("text", "credits"), [("50", 50), ("50.0", 50), ("50,0", 50), ("1 000", 1_000), ("12\u202f000", 12_000)]
)
def test_a_whole_number_is_read_as_spreadsheets_write_it(text: str, credits: int) -> None:
    """Also with spaces between thousands."""
    assert cell("max_credits", text).max_credits == credits


@pytest.mark.parametrize("text", ["1,000", "1.000.000", "1,000,000", "50 %", "ten", "1 00", "0x10", "١٢"])
def test_a_number_that_is_not_certain_is_rejected(text: str) -> None:
    """1,000 is one or a thousand."""
    [row] = rows("audio_url;max_credits", f"{A};{text}")

    assert row_error(row).startswith("max_credits: ")


@pytest.mark.parametrize(
    "words",
    [
        "yes no", "TRUE FALSE", "Ja Nein", "WAHR FALSCH", "oui non", "VRAI FAUX", "sí no", "VERDADERO FALSO", "sì no",
        "VERO FALSO", "1 0", "1.0 0.0", "on off", "y n", "X 0",
    ],
)  # fmt: skip
def test_booleans_are_read_in_their_usual_words(words: str) -> None:
    """Of English, German, French, Spanish and Italian spreadsheets; a blank cell has no value."""
    yes, no = words.split()

    assert [cell("reuse", text).reuse for text in (yes, no, "")] == [True, False, None]


def test_another_word_than_yes_or_no_is_rejected() -> None:
    """The error says what is allowed."""
    [row] = rows("audio_url;reuse", f"{A};maybe")

    assert row_error(row) == "reuse: must be yes or no, or blank"


@pytest.mark.parametrize("text", ["0,5", "50 %", "x", "Ja", "'quoted", "1 000", "50.0", "+1", "E"])
def test_a_text_is_kept_as_it_is(text: str) -> None:
    """Numbers, words and apostrophes are read in columns of their type only."""
    job = cell("metadata.note", text)

    assert job.metadata == {"note": text}
    assert cell("name", text).name == text


def test_words_with_fixed_spelling_may_have_any_case() -> None:
    """Priorities, genders and hashes."""
    job = cell("priority;vocal_gender;audio_sha256", f"High;Female;{'AB' * 32}")

    assert (job.priority, job.audio_sha256) == ("high", "ab" * 32)
    assert job.song is not None
    assert job.song.vocal_gender == "f"


def test_every_field_without_a_check_of_its_own_has_a_converter() -> None:
    """A new field is read as spreadsheets write it, too. URLs and models are checked by the job."""
    checked_by_the_job = {"callback_url", "mv"}

    assert {field for field in (*JOB_COLUMNS, *SONG_COLUMNS) if converter(field) is None} == checked_by_the_job


@pytest.mark.parametrize("column", ["max_credits", "start_within_s"])
@pytest.mark.parametrize(
    ("text", "small", "large"), [("1.000", "1", "1000"), ("12,500", "12.5", "12500"), ("1.234", "1.234", "1234")]
)
def test_a_sign_that_may_part_thousands_is_rejected_with_both_numbers(
    column: str, text: str, small: str, large: str
) -> None:
    """A German limit of 1.000 credits must not become one credit."""
    [row] = rows(f"audio_url;{column}", f"{A};{text}")

    assert row_error(row) == f"{column}: is {text!r}, which may be {small} or {large}; write {small} or {large}"


@pytest.mark.parametrize(("text", "seconds"), [("0.500", 0.5), ("0,500", 0.5), ("1.5", 1.5), ("1.0000", 1.0)])
def test_decimals_that_part_no_thousands_are_certain(text: str, seconds: float) -> None:
    """No number is written with a group of zero thousands, or of other than three digits."""
    assert cell("start_within_s", text).start_within_s == seconds


@pytest.mark.parametrize(
    ("column", "text", "error"),
    [
        ("style_weight", "50", "is 50; write 0.5 or 50 %"),
        ("audio_weight", "7,5", "is 7,5; write 0.075 or 7.5 %"),
        ("style_weight", "150 %", "is 150 %; 0 to 1, or 0 % to 100 %, is allowed"),
        ("style_weight", "-1", "is -1; 0 to 1, or 0 % to 100 %, is allowed"),
        ("style_weight", "half", "is 'half', not a number; write it in plain digits, such as 20 or 0.5"),
        ("start_within_s", "2 h", "is '2 h', not a number; write it in plain digits, such as 20 or 0.5"),
        ("max_credits", "1.5", "is '1.5', not a whole number; write it in plain digits, such as 20"),
    ],
)
def test_an_error_of_a_number_shows_the_value_and_the_cure(column: str, text: str, error: str) -> None:
    """A person finds the cell by its value."""
    [row] = rows(f"audio_url;prompt;{column}", f"{A};la;{text}")

    assert row_error(row) == f"{column}: {error}"


@pytest.mark.parametrize("column", ["key", "persona_id", "name", "voice"])
@pytest.mark.parametrize("text", ["1,23457E+19", "1.23456789012345e+19", "1E+16"])
def test_a_number_that_a_spreadsheet_shortened_is_no_name(column: str, text: str) -> None:
    """Different keys would become the same one."""
    [row] = rows(f"audio_url;prompt;{column}", f"{A};la;{text}")

    assert row_error(row).startswith(f"{column}: is the number {text}, of which the spreadsheet program keeps 15")
    assert "format the column as text" in row_error(row)


# ── never a job ───────────────────────────────────────────────────────────────────────────────────

ERRORS = [
    "#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#FIELD!", "#BUSY!",
    "######", "#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#VALEUR!", "#¡REF!", "#¿NOMBRE?", "#RIF!", "#ERROR!", "Err:502",
    "#n/a",
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("column", ["name", "title", "prompt", "metadata.note", "key", "style_weight"])
def test_a_spreadsheet_error_in_any_field_rejects_its_row(error: str, column: str) -> None:
    """The song would be ordered of it. The error names the field and the value."""
    bad, good = rows(f"audio_url;{column};metadata.x", f"{A}; {error} ;", f"{B};;")

    assert row_error(bad).startswith(f"{column}: is ")
    assert error in row_error(bad)
    assert good.to_job("b").audio_url == B


@pytest.mark.parametrize(
    "fields",
    [{"title": "#N/A"}, {"song": {"prompt": "#REF!"}}, {"metadata": {"a": "#NV"}}, {"songs": [{"prompt": "#WERT!"}]}],
)
def test_a_spreadsheet_error_in_json_rejects_its_row(fields: dict[str, object]) -> None:
    """Programs export spreadsheets as JSON, too."""
    assert "is the spreadsheet error" in row_error(rows(json.dumps({"audio_url": A, **fields}))[0])


@pytest.mark.parametrize("text", ["#1 hit", "# Verse", "#love", "The error #N/A", "E", "## x", "#REF! in words"])
def test_a_text_with_a_number_sign_is_no_error(text: str) -> None:
    """Only a whole cell is."""
    assert cell("name", text).name == text


@pytest.mark.parametrize("formula", ["=A1", "=HYPERLINK(B2)", " =1+1", "=", "='x'!A1"])
@pytest.mark.parametrize("column", ["name", "metadata.note", "prompt"])
def test_a_formula_rejects_its_row(formula: str, column: str) -> None:
    """Its result is not in the file."""
    [row] = rows(f"audio_url;{column}", f"{A};{formula}")

    assert row_error(row).startswith(f"{column}: is ")


def test_lyrics_that_begin_with_a_line_of_equals_signs_are_no_formula() -> None:
    """No formula begins with two."""
    assert cell("name", "== Intro ==").name == "== Intro =="


def test_a_text_in_json_that_begins_with_an_equals_sign_is_a_text() -> None:
    """JSON contains no formulas."""
    assert jobs(rows(json.dumps({"audio_url": A, "name": "=1+1"})))[0].name == "=1+1"


PLACEHOLDERS = [
    "nan", "NaN", "None", "NaT", "<NA>", "null", "undefined", "-", "--", "–", "?", "...", "n/a", "N/A", "k.A.", "TODO",
    "tbd", "(leer)", "(blank)", "Loading...", "- / -",
]  # fmt: skip


@pytest.mark.parametrize("text", PLACEHOLDERS)
@pytest.mark.parametrize("column", ["title", "prompt", "tags", "description", "name", "key", "voice", "persona_id"])
def test_a_placeholder_in_a_text_rejects_its_row(text: str, column: str) -> None:
    """A song of the words "nan" costs as much as one of lyrics."""
    [row] = rows(f"audio_url;{column}", f"{A}; {text} ")

    assert row_error(row) == f"{column}: is {text!r}, a placeholder; clear the cell, or enter the value"


@pytest.mark.parametrize("text", ["nan\nnan", "-\n\n-", "#N/A\n#N/A", "#N/A #REF!"])
def test_a_text_of_placeholders_or_errors_only_rejects_its_row(text: str) -> None:
    """Lines and cells that were joined do not make lyrics."""
    [row] = rows("audio_url;prompt", f'{A};"{text}"')

    assert row_error(row).startswith("prompt: is ")


@pytest.mark.parametrize(
    "fields",
    [{"title": "nan"}, {"song": {"prompt": "None"}}, {"songs": [{"prompt": "<NA>"}]}, {"name": "null"}],
)
def test_a_placeholder_in_json_rejects_its_row(fields: dict[str, object]) -> None:
    """Programs write it in place of a missing value."""
    assert "a placeholder" in row_error(rows(json.dumps({"audio_url": A, **fields}))[0])


@pytest.mark.parametrize(
    "text", ["Nan", "Nana", "Na", "None of us", "x", "Null Bock", "TODO list", "O", "Loading Zone"]
)
def test_a_text_that_only_resembles_a_placeholder_is_kept(text: str) -> None:
    """Names and titles that people use."""
    job = cell("name;title;metadata.note", f"{text};{text};nan")

    assert (job.name, job.song and job.song.title, job.metadata) == (text, text, {"note": "nan"})


@pytest.mark.parametrize("text", ["click here", "Ana (take 2)", "Hörprobe"])
def test_the_text_of_a_hyperlink_is_shown_with_the_cure(text: str) -> None:
    """Excel shows it, and stores the link elsewhere."""
    [row] = rows("audio_url;name", f"{text};Ana")

    assert row_error(row) == (
        f"audio_url: must be an http:// or https:// URL, not {text!r}: a cell must contain the link itself, not a text "
        "that opens it"
    )


# ── cut off ───────────────────────────────────────────────────────────────────────────────────────

COMPLETE = ReadOptions(accept_incomplete=True)


def test_a_last_line_without_its_end_is_rejected_unless_it_is_accepted() -> None:
    """Its URL may be cut off. The error says what to do."""
    lines = f"audio_url,name\n{A},Ana\n{B},Bo".encode()
    first, last = RowReader(file(lines, end=b""))
    accepted = list(RowReader(file(lines, end=b""), COMPLETE))

    assert first.to_job("b").name == "Ana"
    assert "add a line break at its end, or pass --accept-incomplete" in row_error(last)
    assert last.cells == {"audio_url": B, "name": "Bo"}
    assert [row.to_job("b").name for row in accepted] == ["Ana", "Bo"]


def test_no_file_that_is_cut_off_gives_a_job_that_the_whole_file_does_not() -> None:
    """At any byte, for CSV and JSON."""
    csv = f'audio_url,name,prompt\n{A},Ana,"la\nla"\r\n{B},"B ""o""",lo\n'.encode()
    json_lines = "".join(json.dumps({"audio_url": url, "name": "Ana", "prompt": "la"}) + "\n" for url in (A, B))
    pretty = json.dumps([json.loads(line) for line in json_lines.splitlines()], indent=2)
    for content in (csv, json_lines.encode(), pretty.encode()):
        whole = jobs(list(RowReader(file(content, end=b""))))
        for size in range(content.index(b"http"), len(content)):
            assert [job for job in readable_jobs(content[:size]) if job not in whole] == []


def readable_jobs(content: bytes) -> list[VoiceJob]:
    """Return the jobs of the rows that are valid."""
    valid = []
    for row in RowReader(file(content, end=b"")):
        try:
            valid.append(row.to_job("spring").model_copy(update={"source_row": None}))
        except ValueError:
            continue
    return valid


def test_a_row_that_is_shorter_than_the_header_is_rejected_unless_it_is_accepted() -> None:
    """It may be cut off."""
    bad, good = rows("audio_url,name,title", A, f"{B},,")
    [accepted] = RowReader(file("audio_url,name,title", A), COMPLETE)

    assert row_error(bad) == (
        "has 1 cell, but the header names 3, so it may be cut off; complete it, or pass --accept-incomplete if the "
        "missing cells are empty"
    )
    assert good.to_job("b").audio_url == B
    assert accepted.to_job("b").audio_url == A
