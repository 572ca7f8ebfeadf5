"""Read the cells of an Excel workbook in bounded memory. openpyxl reads its structure and the formats of its dates."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import BinaryIO

from voicequeue.ingest.excel.cells import CellReader
from voicequeue.ingest.excel.xml import DamagedSheet, SharedStrings, elements
from voicequeue.ingest.file_types import EXCEL
from voicequeue.ingest.row import UnreadableFileError

#: The most bytes of a part: of sheets and texts, which are read as a stream, and of the others.
_STREAMED_MAX, _PART_MAX = 2**30, 2**24
_PARTS = ("[Content_Types].xml", EXCEL, "xl/_rels/workbook.xml.rels", "xl/styles.xml")

_MERGES_MAX = 100_000
_MERGED = re.compile(
    rb"""<(?:\w+:)?mergeCell\s[^>]*?ref=["']\$?([A-Z]{1,3})\$?(\d{1,7}):\$?([A-Z]{1,3})\$?(\d{1,7})["']"""
)
_VALUE = re.compile(rb"<(?:\w+:)?(?:v|is|f)[\s/>]")
_RECALCULATES = re.compile(rb"""fullCalcOnLoad=["'](1|true)["']""")
_DECLARATION = re.compile(rb"<!(DOCTYPE|ENTITY)")
_ROW_NUMBER = re.compile(r"[0-9]{1,7}")
_CHUNK = 262_144

DAMAGED = "the Excel workbook is damaged, or not as Excel writes it; open it in Excel, and save it again as .xlsx"


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row of a sheet: its number, and its cells as texts, without empty ones at the end."""

    number: int
    values: list[str]
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class _Merge:
    first_row: int
    last_row: int
    first_column: int
    range: str


class Sheet:
    """One sheet of a workbook. `close` deletes its temporary files.

    `others`: the names of the other sheets that are visible and not empty.
    """

    def __init__(
        self, archive: zipfile.ZipFile, part: str, *, name: str, others: tuple[str, ...], cells: CellReader
    ) -> None:
        self.name = name
        self.others = others
        self._archive = archive
        self._part = part
        self._cells = cells
        self._end = 0  # of the last value, in bytes; styled rows may follow
        self._following = sorted(self._scan(), key=lambda merge: -merge.first_row)
        self._current: list[_Merge] = []

    def close(self) -> None:
        """Close the workbook."""
        self._cells.close()
        self._archive.close()

    def rows(self) -> Generator[SheetRow, None, None]:
        """Yield the rows that the sheet has, in order. Raises DamagedSheet."""
        number = 0
        with self._archive.open(self._part) as source:
            for row in elements(source, "row", container="sheetData", end=self._end):
                label = row.get("r", "")
                previous, number = number, int(label) if _ROW_NUMBER.fullmatch(label) else number + 1
                if number <= previous:
                    raise DamagedSheet("the rows of the sheet are not in order; open it in Excel, and save it again")
                yield SheetRow(number, self._cells.values(row), row.get("hidden") in ("1", "true"))

    def merged_at(self, row: int, width: int) -> str:
        """Return the merged cells in the first `width` columns of a row; '' if there are none. Call it in order."""
        while self._following and self._following[-1].first_row <= row:
            self._current.append(self._following.pop())
        self._current = [merge for merge in self._current if merge.last_row >= row]
        return next((merge.range for merge in self._current if merge.first_column <= width), "")

    def _scan(self) -> list[_Merge]:
        """Return the merged cells, which follow the rows; all bytes are thus checked before the first row."""
        merges: list[_Merge] = []
        with self._archive.open(self._part) as source:
            rest = b""
            while chunk := source.read(_CHUNK):
                text = rest + chunk
                if _VALUE.search(text):
                    self._end = source.tell()
                end = 0
                for match in _MERGED.finditer(text):
                    merges.append(_merge(match))
                    end = match.end()
                rest = text[max(end, len(text) - 200) :]
                if len(merges) > _MERGES_MAX:
                    raise UnreadableFileError(f"sheet {self.name!r} has more than {_MERGES_MAX:,} merged cells")
        return merges


def _merge(match: re.Match[bytes]) -> _Merge:
    first_column, first_row, last_column, last_row = (group.decode() for group in match.groups())
    name = f"{first_column}{first_row}:{last_column}{last_row}"
    return _Merge(int(first_row), int(last_row), CellReader.column(first_column), name)


def open_sheet(file: BinaryIO, name: str | None) -> Sheet:
    """Return a sheet of a workbook, by default the first that is visible. Raises UnreadableFileError."""
    try:
        import openpyxl  # noqa: F401, PLC0415
    except ImportError:
        raise UnreadableFileError(
            "reading Excel files needs the package openpyxl: pip install 'voicequeue[excel]'"
        ) from None
    archive = zipfile.ZipFile(file)
    try:
        _check_parts(archive)
        with warnings.catch_warnings():  # of parts that openpyxl does not support
            warnings.simplefilter("ignore")
            return _sheet(archive, file, name)
    except UnreadableFileError:
        archive.close()
        raise
    except Exception:  # openpyxl raises errors of many types for damaged parts
        archive.close()
        raise UnreadableFileError(DAMAGED) from None


def _check_parts(archive: zipfile.ZipFile) -> None:
    for part in archive.infolist():
        if part.filename in _PARTS:
            if part.file_size > _PART_MAX or _DECLARATION.search(archive.read(part)):
                raise UnreadableFileError(DAMAGED)
        elif part.file_size > _STREAMED_MAX and part.filename.endswith(".xml"):
            raise UnreadableFileError(
                f"the Excel workbook has a part of {part.file_size:,} bytes; at most {_STREAMED_MAX:,} are read. "
                "Save the sheet as CSV UTF-8"
            )


def _sheet(archive: zipfile.ZipFile, file: BinaryIO, name: str | None) -> Sheet:
    from openpyxl.reader.excel import ExcelReader  # noqa: PLC0415
    from openpyxl.styles.stylesheet import apply_stylesheet  # noqa: PLC0415
    from openpyxl.xml.constants import SHARED_STRINGS  # noqa: PLC0415

    reader = ExcelReader(file, read_only=True, keep_links=False)
    reader.read_manifest()
    reader.read_workbook()
    apply_stylesheet(archive, reader.wb)
    sheets = {
        sheet.name: (str(rel.target), sheet.state or "visible")
        for sheet, rel in reader.parser.find_sheets()
        if rel.Type.endswith("/worksheet") and rel.target in archive.namelist()
    }
    sheet_name = _choose(sheets, name)
    recalculates = bool(_RECALCULATES.search(archive.read(EXCEL)))
    with ExitStack() as stack:
        strings = stack.enter_context(closing(SharedStrings()))
        if part := reader.package.find(SHARED_STRINGS):  # type: ignore[no-untyped-call]
            with archive.open(part.PartName.removeprefix("/")) as source:
                strings.read(source)
        cells = CellReader(strings, reader.wb, has_certain_results=not recalculates)
        others = tuple(
            other
            for other, (part, state) in sheets.items()
            if other != sheet_name and state == "visible" and _has_values(archive, part)
        )
        sheet = Sheet(archive, sheets[sheet_name][0], name=sheet_name, others=others, cells=cells)
        stack.pop_all()
    return sheet


def _has_values(archive: zipfile.ZipFile, part: str) -> bool:
    """Return whether a sheet has cells with values near its beginning."""
    with archive.open(part) as source:
        return _VALUE.search(source.read(_CHUNK)) is not None


def _choose(sheets: Mapping[str, tuple[str, str]], name: str | None) -> str:
    if not sheets:
        raise UnreadableFileError("the Excel workbook has no sheet with cells")
    if name is None:
        return next((sheet for sheet, (_, state) in sheets.items() if state == "visible"), next(iter(sheets)))
    if name in sheets:
        return name
    folded = [sheet for sheet in sheets if sheet.strip().casefold() == name.strip().casefold()]
    if len(folded) != 1:
        raise UnreadableFileError(f"there is no sheet {name[:40]!r}; the sheets are {', '.join(map(repr, sheets))}")
    return folded[0]
