"""Excel workbooks for tests: written by openpyxl, or as XML, where the details matter."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape

import openpyxl

_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"

_STYLES = (
    f'<styleSheet xmlns="{_NAMESPACE}"><fonts count="1"><font/></fonts>'
    '<fills count="1"><fill><patternFill/></fill></fills>'
    '<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="3">'
    '<xf numFmtId="0" xfId="0"/><xf numFmtId="14" xfId="0"/><xf numFmtId="9" xfId="0"/></cellXfs></styleSheet>'
)


def workbook(*rows: Sequence[Any], title: str = "Voices", **others: list[list[Any]]) -> bytes:
    """Return a workbook with these rows on its first sheet, as openpyxl writes it."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = title
    for row in rows:
        sheet.append(list(row))
    for name, cells in others.items():
        other = book.create_sheet(name)
        for row in cells:
            other.append(row)
    return saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    """Return the file of a workbook."""
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def inline(*texts: str) -> str:
    """Return cells with these texts as XML."""
    return "".join(f'<c t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>' for text in texts)


def xml_row(*texts: str, cells: str = "", attributes: str = "") -> str:
    """Return a row of these texts, and further cells, as XML."""
    return f"<row {attributes}>{inline(*texts)}{cells}</row>"


def written(
    rows: Iterable[str], *, after: str = "", before: str = "", strings: str = "", workbook_part: str = ""
) -> bytes:
    """Return a workbook with one sheet of these rows as XML, and XML before and after them.

    `strings`: the shared texts. `workbook_part`: XML of the workbook.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _parts(strings, workbook_part).items():
            archive.writestr(name, content)
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            sheet.write(f'<worksheet xmlns="{_NAMESPACE}">{before}<sheetData>'.encode())
            for row in rows:
                sheet.write(row.encode())
            sheet.write(f"</sheetData>{after}</worksheet>".encode())
    return file.getvalue()


def _parts(strings: str, workbook_part: str) -> dict[str, str]:
    types = {"workbook": "sheet.main", "worksheets/sheet1": "worksheet", "styles": "styles"}
    types |= {"sharedStrings": "sharedStrings"} if strings else {}
    overrides = "".join(
        f'<Override PartName="/xl/{part}.xml" ContentType="{_TYPE}.{kind}+xml"/>' for part, kind in types.items()
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">{overrides}</Types>',
        "xl/workbook.xml": (
            f'<workbook xmlns="{_NAMESPACE}" xmlns:r="{_OFFICE}"><sheets><sheet name="Voices" sheetId="1" r:id="r1"/>'
            f"</sheets>{workbook_part}</workbook>"
        ),
        "xl/_rels/workbook.xml.rels": (
            f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r1" Type="{_OFFICE}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>'
        ),
        "xl/styles.xml": _STYLES,
    }
    if strings:
        parts["xl/sharedStrings.xml"] = f'<sst xmlns="{_NAMESPACE}">{strings}</sst>'
    return parts
