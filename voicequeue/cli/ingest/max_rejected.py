"""`--max-rejected`: stop before more rows are enqueued from a file of which too many are rejected."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from voicequeue.cli.ingest.errors import TooManyRejectedError
from voicequeue.texts import parse_float, pluralize

#: The rows from which on a percentage counts; a shorter file counts as a whole.
SAMPLE_MIN = 20


@dataclass(frozen=True, slots=True)
class MaxRejected:
    """The rows that may be rejected: a number of them, or a share of all rows so far."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> MaxRejected:
        """Return the limit that a text such as `100` or `10%` names. Raises BadParameter."""
        text = text.strip()
        digits = text.removesuffix("%").strip()
        if text.endswith("%") and "." not in digits:
            digits = digits.replace(",", ".")
        number = parse_float(digits)
        if text.endswith("%") and number is not None and 0 <= number <= 100:
            return cls(percent=number)
        if number is not None and number >= 0 and number.is_integer() and "%" not in text:
            return cls(count=int(number))
        raise typer.BadParameter("must be a number of rows such as 100, or a percentage such as 10%")

    def __str__(self) -> str:
        return f"{self.count:,}" if self.percent is None else f"{self.percent:g}%"

    def is_exceeded(self, rejected: int, rows: int, *, is_end: bool) -> bool:
        """Return whether so many of the rows are too many. `is_end`: there are no further rows."""
        if self.percent is None:
            return rejected > (self.count or 0)
        return (rows >= SAMPLE_MIN or is_end) and rejected * 100 > rows * self.percent

    def check(self, rejected: int, rows: int, *, is_end: bool) -> None:
        """Raise TooManyRejectedError if so many of the rows are too many."""
        if self.is_exceeded(rejected, rows, is_end=is_end):
            raise TooManyRejectedError(
                f"{rejected:,} of the first {pluralize(rows, 'row')} were rejected; --max-rejected {self} allows "
                "no more. Correct the file and run the command again, which skips rows that are jobs; or raise "
                "--max-rejected"
            )
