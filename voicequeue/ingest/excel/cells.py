"""Return the cells of a workbook as the texts that a spreadsheet program would write to CSV."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from voicequeue.ingest.excel.xml import DamagedSheet, SharedStrings, plain_text, unescape
from voicequeue.ingest.values import NumberText, invalid_cell

if TYPE_CHECKING:
    from openpyxl import Workbook

#: The most columns of a sheet.
_COLUMNS_MAX = 16_384

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INDEX = re.compile(r"\s*[0-9]{1,10}\s*")
_LETTERS = re.compile(r"[A-Z]{1,3}")


class CellReader:
    """Reads cells of a workbook.

    `has_certain_results`: whether the results of formulas are those of their last calculation. Some programs write
    formulas without results, or with 0, and have them calculated when a person opens the file.
    """

    def __init__(self, strings: SharedStrings, workbook: Workbook, *, has_certain_results: bool) -> None:
        self._strings = strings
        self._epoch = workbook.epoch
        self._dates: set[int] = workbook._date_formats  # type: ignore[attr-defined]
        self._durations: set[int] = workbook._timedelta_formats  # type: ignore[attr-defined]
        self._has_certain_results = has_certain_results
        self._columns: dict[str, int] = {}

    def close(self) -> None:
        """Delete the temporary file of texts."""
        self._strings.close()

    def values(self, row: Element) -> list[str]:
        """Return the texts of a row's cells, without empty ones at its end."""
        values: list[str] = []
        column = 0
        for cell in row:
            reference = cell.get("r")
            column = self._column_of(reference) if reference else column + 1
            if len(cell) and (text := self._text(cell)):
                values += [""] * (column - len(values))
                values[column - 1] = text
        return values

    def _column_of(self, reference: str) -> int:
        letters = reference.rstrip("0123456789")
        column = self._columns.get(letters)
        if column is None:
            column = self._columns[letters] = self.column(letters)
        return column

    @staticmethod
    def column(letters: str) -> int:
        """Return the number of a column, from 1. Raises DamagedSheet."""
        number = 0
        if _LETTERS.fullmatch(letters):
            for letter in letters:
                number = number * 26 + ord(letter) - 64
        if not 0 < number <= _COLUMNS_MAX:
            raise DamagedSheet("a cell has no valid column; open the file in Excel, and save it again")
        return number

    def _text(self, cell: Element) -> str:
        parts = {child.tag.rpartition("}")[2]: child for child in cell}
        value = parts.get("v")
        if "f" in parts and (value is None or not self._has_certain_results):
            return "=" + ((parts["f"].text or "").lstrip("= ") or "…")
        if cell.get("t") == "inlineStr":
            return plain_text(parts["is"]) if "is" in parts else ""
        return self._plain(cell, (value.text or "") if value is not None else "")

    def _plain(self, cell: Element, text: str) -> str:
        match cell.get("t", "n"):
            case "s":
                return self._strings.get(int(text) if _INDEX.fullmatch(text) else -1)
            case "str":
                return unescape(text)
            case "b":
                return "TRUE" if text.strip() in ("1", "true") else "FALSE"
            case "e":
                return text if invalid_cell(text) else "#ERROR!"
            case "d":
                return self._date_text(text)
        return self._number(cell, text) if text else ""

    def _number(self, cell: Element, text: str) -> str:
        if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
            return "#NUM!"
        style = cell.get("s", "0")
        style_id = int(style) if _INDEX.fullmatch(style) else 0
        if style_id in self._dates:
            return self._serial(float(text), is_duration=style_id in self._durations)
        # Fifteen digits, as spreadsheet programs calculate and show them: 0.30000000000000004 is 0.3.
        return NumberText(text if text.isascii() and text.isdigit() else format(float(text), ".15g"))

    def _serial(self, number: float, *, is_duration: bool) -> str:
        from openpyxl.utils.datetime import from_excel  # noqa: PLC0415

        try:
            return _shown(from_excel(number, self._epoch, timedelta=is_duration))
        except (OverflowError, ValueError):
            return "######"  # which Excel shows for dates before its first

    @staticmethod
    def _date_text(text: str) -> str:
        from openpyxl.utils.datetime import from_ISO8601  # noqa: PLC0415

        try:
            return _shown(from_ISO8601(text))  # type: ignore[no-untyped-call]
        except ValueError:
            return text


def _shown(moment: Any) -> str:
    if isinstance(moment, datetime):
        at_midnight = moment.time() == time()
        return moment.date().isoformat() if at_midnight else moment.isoformat(" ", "seconds")
    if isinstance(moment, date):
        return moment.isoformat()
    return moment.isoformat("seconds") if isinstance(moment, time) else str(moment)
