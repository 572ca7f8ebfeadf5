"""Recognize files that are no rows, by their content: each is named with its cure, and never shown as binary."""

from __future__ import annotations

import codecs
import re
import zipfile
from typing import BinaryIO

from voicequeue.ingest.audio.sniff import SNIFFED, UNKNOWN, describe
from voicequeue.ingest.row import UnreadableFileError

_AS_TABLE = "save it as .xlsx or as CSV UTF-8"
_LIST = "name the file that lists the recordings"
_UNPACK = "unpack it, and name the spreadsheet that is inside"

#: The first bytes of files that are no rows, with their names and cures.
_STARTS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name, cure)
    for pattern, name, cure in (
        (rb"\x1f\x8b", "compressed with gzip inside gzip", "decompress it"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
        (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
        (rb"BZh[1-9]1AY&SY", "compressed with bzip2", "decompress it"),
        (rb"\xfd7zXZ\0", "compressed with xz", "decompress it"),
        (rb"\x28\xb5\x2f\xfd", "compressed with Zstandard", "decompress it"),
        (rb".{257}ustar", "a tar archive", _UNPACK),
        (rb"%PDF", "a PDF", "open the spreadsheet that it was made from, and " + _AS_TABLE),
        (rb"SQLite format 3\0", "an SQLite database", "export the table as CSV UTF-8"),
        (rb"PAR1[\x00-\x1f]", "a Parquet file", "export it as CSV UTF-8 or JSON Lines"),
        (rb"(\xef\xbb\xbf)?\s*<\?xml.{0,400}Excel\.Sheet", "an XML spreadsheet of Excel 2003", _AS_TABLE),
        (rb"(\xef\xbb\xbf)?\s*<\?xml.{0,2000}<office:document", "a flat OpenDocument spreadsheet (.fods)", _AS_TABLE),
        (rb"\s*<\?xml.{0,2000}<gnm:Workbook", "a Gnumeric spreadsheet (.gnumeric)", _AS_TABLE),
        (rb"TABLE\r?\n0,1\r?\n", "a DIF spreadsheet (.dif)", _AS_TABLE),
        (rb"ID;P\w*(;[NE])*\r?\n(P;P|B;[XY]\d|C;[XY]\d|F;[PWX])", "a SYLK spreadsheet (.slk)", _AS_TABLE),
        (rb"\{\\rtf", "an RTF document", "copy the table into a spreadsheet, and " + _AS_TABLE),
        (rb"\x7fELF|MZ.{50,}This program", "a program", "name a CSV, Excel or JSON file"),
        (rb"BM.{4}\0{4}|II\*\0|MM\0\*|RIFF....WEBP|....ftyp(hei|avif)", "a picture", "name a CSV, Excel or JSON file"),
        (rb"RIFF....WAVE|RF64....WAVE", "a WAV recording", _LIST),
        (
            rb"ID3[\x02-\x04]|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]",
            "an MP3 recording",
            _LIST,
        ),
    )
)

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")

#: Parts of zip files that show what they are. Excel workbooks are read.
EXCEL = "xl/workbook.xml"
_ZIPPED = (
    (re.compile(r"xl/workbook\.bin"), "a binary Excel workbook (.xlsb)", _AS_TABLE),
    (re.compile(r"word/"), "a Word document (.docx)", "copy its table into a spreadsheet, and " + _AS_TABLE),
    (re.compile(r"ppt/"), "a PowerPoint file (.pptx)", "copy its table into a spreadsheet, and " + _AS_TABLE),
    (re.compile(r"Index/.*\.iwa|Index\.zip"), "a Numbers file", "choose File > Export to > CSV or Excel in Numbers"),
)
_OPEN_DOCUMENT = b"application/vnd.oasis.opendocument."

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_LINE_END = re.compile(rb"[\r\n]")


def is_zip(start: bytes) -> bool:
    """Return whether a file that begins with `start` is a zip file, such as an Excel workbook."""
    return start.startswith(_ZIP)


def check_start(start: bytes) -> None:
    """Reject a file that begins with `start` and is no text. Raises UnreadableFileError."""
    if start.startswith(_OLE):
        raise _ole(start)
    for pattern, name, cure in _STARTS:
        if pattern.match(start):
            raise UnreadableFileError(f"the file is {name}; {cure}")
    kind = describe(start[:SNIFFED])
    if kind in ("an HTML page", "XML or HTML"):
        raise UnreadableFileError(
            f"the file is {kind}, perhaps a login page that was saved instead of the file; download it again, or "
            f"open it in a spreadsheet program and {_AS_TABLE}"
        )
    if kind not in ("", UNKNOWN, "JSON", "plain text", "MP3", "WAV"):
        raise UnreadableFileError(f"the file is {kind}; name a CSV, Excel or JSON file that lists the recordings")


def check_text(start: bytes) -> None:
    """Reject a file without a byte order mark whose first line is no text. Raises UnreadableFileError."""
    first_line = _LINE_END.split(start.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n"), maxsplit=1)[0]
    if _CONTROLS.search(first_line):
        raise UnreadableFileError("the file is binary, neither text nor a workbook; save it as .xlsx or as CSV UTF-8")


def _ole(start: bytes) -> UnreadableFileError:
    if _ENCRYPTED in start:
        return UnreadableFileError("the file is an Excel workbook with a password; remove the password, and save it")
    return UnreadableFileError(f"the file is an Excel 97-2003 workbook (.xls) or another old Office file; {_AS_TABLE}")


def check_zip(file: BinaryIO) -> None:
    """Reject a zip file that is no Excel workbook. Raises UnreadableFileError."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            kind = archive.read("mimetype") if "mimetype" in names and _is_small(archive, "mimetype") else b""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        raise UnreadableFileError(
            "the file is an Excel workbook or a zip archive that is damaged or truncated; save or download it again"
        ) from None
    if EXCEL in names:
        return
    if kind.startswith(_OPEN_DOCUMENT):
        raise UnreadableFileError(f"the file is an OpenDocument file, such as .ods of LibreOffice; {_AS_TABLE}")
    for pattern, name, cure in _ZIPPED:
        if any(map(pattern.match, names)):
            raise UnreadableFileError(f"the file is {name}; {cure}")
    raise UnreadableFileError(f"the file is a zip archive; {_UNPACK}")


def _is_small(archive: zipfile.ZipFile, name: str) -> bool:
    return archive.getinfo(name).file_size < 1_000
