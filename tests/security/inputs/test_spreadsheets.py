"""CSV injection: no cell is evaluated as a formula in a spreadsheet program, with any separator."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.conftest import Command
from tests.store.life import job_with_song
from voicequeue import Clip, VoiceQueue
from voicequeue.ingest.cells import guard, guard_for_any_separator, unguard
from voicequeue.ingest.row_reader import RowReader
from voicequeue.storage.job_store import JobStore

#: Separators that programs use, depending on their locale.
SEPARATORS = ",;\t|"

URL = "https://recordings.example/a.wav"

ATTACKS = [
    "=HYPERLINK(1)", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", " \t=1", "\r=1", "a;=1+1", "a\t=1", 'a;"=1', "a\n=1",
    "a; '=1", "＝1", "＋1", "－1", "＠SUM(1)", "a;＝1", "−1", "'=1", "''=1", '"=1', "a|=1", "\u200b=1", "a\u2028=1",
    ";;=1",
]  # fmt: skip

_SIGNS = tuple("=+-@＝＋－＠−﹦﹢﹣﹫")


def cells_of(text: str, separator: str) -> Iterator[str]:
    """Yield the cells that a program with this separator reads."""
    for row in csv.reader(io.StringIO(text), delimiter=separator):
        yield from row


def formulas(text: str) -> list[tuple[str, str]]:
    """Return the cells that some program would evaluate, with the separator."""
    cells = ((separator, cell) for separator in SEPARATORS for cell in cells_of(text, separator))
    return [(separator, cell) for separator, cell in cells if cell.strip(' "\t\r\n\u200b\u2028').startswith(_SIGNS)]


@given(st.text(alphabet="a1=-＝+@'\" ;|\t\n\r,\u2028\u200b", max_size=12))
def test_a_guarded_text_is_no_formula_and_can_be_restored(text: str) -> None:
    """Also where a cell may start inside the text."""
    cells = re.split("[;|\t\n\r\u2028]", guard(text))
    any_cells = re.split("[,;|\t\n\r\u2028]", guard_for_any_separator(text))

    assert [cell for cell in (*cells, *any_cells) if cell.strip(' "\u200b').startswith(_SIGNS)] == []
    assert unguard(guard_for_any_separator(text)) == text


def test_lookalike_and_invisible_characters_hide_no_formula() -> None:
    """Every character that Unicode normalizes to a sign, after every invisible character."""
    letters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    signs = [letter for letter in letters if unicodedata.normalize("NFKC", letter)[:1] in tuple("=+-@−")]
    hidden = [*"\xad\u061c\u200e\u202a\u202e\u2066\u2069\u2060\u180e", ""]

    assert len(signs) > 15
    for text in (f"{before}{sign}1" for sign in signs for before in hidden):
        assert guard(text) == f"'{text}"
        assert unguard(guard(text)) == text


@pytest.mark.parametrize("sign", ["\t", " ", "'", ";", "\n", "="])
def test_a_row_of_signs_is_processed_fast(sign: str) -> None:
    """A million of them, the largest size of a row."""
    started_at = time.monotonic()

    assert unguard(guard(sign * 1_048_576)) == sign * 1_048_576
    assert time.monotonic() - started_at < 10


@pytest.mark.parametrize("text", ATTACKS)
def test_no_cell_of_an_export_is_a_formula(command: Command, store: JobStore, text: str) -> None:
    """Titles, names and metadata come from callers; programs that read JSON get them unchanged."""
    clip = Clip("c1", "succeeded", text, "https://cdn.example/1.mp3", lyrics=text, tags=text)
    job_with_song(store, (clip, replace(clip, clip_id="c2")), name=f"n{text}", metadata={"note": text, text: "x"})

    exported = command("export").out

    assert formulas(exported) == []
    [row] = csv.DictReader(io.StringIO(exported))
    assert json.loads(row["metadata"]) == {"note": text.strip(), text.strip(): "x"}
    assert json.loads(command("export", "--format", "jsonl").out)["clips"][0]["title"] == text


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rejected_rows_contain_no_formula_and_are_read_back_unchanged(
    command: Command, queue: VoiceQueue, working_folder: Path, kind: str
) -> None:
    """A user corrects the error in a spreadsheet; the rest of each row stays the same."""
    texts = list(dict.fromkeys(map(str.strip, ATTACKS)))
    columns = ["audio_url", "name", "metadata.a;=1", "style_weight", "prompt"]
    rows = [[URL, text, text, "loud", "la"] for text in texts]
    if kind == "csv":
        content = _csv([columns, *rows])
    else:
        objects = (dict(zip(columns, row, strict=True)) for row in rows)
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects)
    file = working_folder / f"voices.{kind}"
    file.write_text(content, encoding="utf-8", newline="")

    assert command("ingest", file, "--batch", "spring").code == 1

    rejected = working_folder / f"voices.{kind}.rejected.csv"
    text = rejected.read_text(encoding="utf-8")
    assert formulas(text) == []
    rejected.write_text(text.replace("loud", "0.5"), encoding="utf-8", newline="")
    unread = {text for text in texts if kind == "csv" and text.startswith("=")}  # a table may contain formulas
    assert command("ingest", rejected, "--batch", "spring").code == bool(unread)
    specs = [job.spec for job in queue.jobs(batch="spring")]
    read = [text for text in texts if text not in unread]
    assert [(spec.name, spec.metadata) for spec in specs] == [(text, {"a;=1": text}) for text in read]


def test_a_file_without_guards_is_read_unchanged() -> None:
    """A guard is removed only from rows that were written with one."""
    [row] = RowReader(io.BytesIO(f"audio_url,name\n{URL},'=1\n".encode()))

    assert row.to_job("spring").name == "'=1"
