"""Tables: complete in pipes, one line for each row on a terminal, and ids that are never cut."""

from __future__ import annotations

import pytest

from voicequeue.cli import tables
from voicequeue.cli.tables import Column, fitted, print_table

COLUMNS = (Column("id"), Column("state", rank=1), Column("name", rank=2, min_width=6), Column("persona", rank=3))


@pytest.mark.parametrize(
    ("available", "widths"),
    [
        (None, [16, 7, 30, 36]),
        (200, [16, 7, 30, 36]),
        (80, [16, 7, 15, 36]),
        (71, [16, 7, 6, 36]),
        (70, [16, 7, 30, 0]),
        (40, [16, 7, 13, 0]),
        (32, [16, 7, 0, 0]),
        (10, [16, 0, 0, 0]),
    ],
)
def test_columns_are_shortened_before_the_least_important_are_left_out(
    available: int | None, widths: list[int]
) -> None:
    """The first column always has its full width, because it is an id that people copy."""
    assert fitted(COLUMNS, [16, 7, 30, 36], available) == widths


def test_empty_columns_are_left_out_on_a_terminal_only() -> None:
    """Programs that read a pipe find the same columns each time."""
    assert fitted(COLUMNS, [16, 7, 0, 0], 80) == [16, 7, 0, 0]
    assert fitted(COLUMNS, [16, 7, 0, 0], None) == [16, 7, 4, 7]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the output a terminal with 40 columns."""
    monkeypatch.setattr("voicequeue.cli.tables._columns_of_terminal", lambda: 40)


def test_no_line_is_wider_than_the_terminal(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with wide characters, of which each takes two columns."""
    print_table(COLUMNS, [("x" * 16, "queued", "李小龍" * 9, "p" * 36), ("y" * 16, "failed", "Ana\n", "")])

    assert capsys.readouterr().out.splitlines() == [
        "id                state   name",
        "xxxxxxxxxxxxxxxx  queued  李小龍李小龍…",
        "yyyyyyyyyyyyyyyy  failed  Ana\\n",
    ]


def test_a_pipe_gets_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each row, however long, for `grep` and `awk`."""
    print_table(COLUMNS, [("x" * 16, "queued", "A" * 300, "p" * 36)])

    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "state", "name", "persona"]
    assert line.split() == ["x" * 16, "queued", "A" * 300, "p" * 36]


def test_a_long_table_has_one_heading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are measured a portion at a time, so that memory stays bounded."""
    monkeypatch.setattr(tables, "ROWS_MEASURED", 2)

    print_table((Column("n"),), [(number,) for number in range(5)])

    assert capsys.readouterr().out.split() == ["n", *"01234"]


def test_a_table_without_rows_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The command says in its own words that there is nothing."""
    print_table(COLUMNS, [])

    assert capsys.readouterr().out == ""
