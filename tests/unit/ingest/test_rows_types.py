"""Files that are no rows: each is named with its cure, and never shown as binary."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
import wave
import zipfile
from pathlib import Path

import pytest

from tests.unit.ingest.files import A, file_error, piped
from voicequeue.ingest.compression import decompressed
from voicequeue.ingest.row import ReadOptions, UnreadableFileError
from voicequeue.ingest.row_reader import RowReader, open_rows

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)


def zipped(**parts: str) -> bytes:
    """Return a zip file with these parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return file.getvalue()


def tarred() -> bytes:
    """Return a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("voices.csv"))
    return file.getvalue()


def recorded() -> bytes:
    """Return a WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 8_000, 0, "NONE", ""))
        recording.writeframes(bytes(1_000))
    return file.getvalue()


def database() -> bytes:
    """Return a database."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table voices (audio_url text)")
    content = connection.serialize()
    connection.close()
    return content


WRONG = {
    "xls": (OLE, "an Excel 97-2003 workbook (.xls) or another old Office file; save it as .xlsx or as CSV UTF-8"),
    "xlsx with a password": (OLE + "EncryptedPackage".encode("utf-16-le"), "with a password; remove the password"),
    "xlsb": (zipped(xl__workbook_DOT_bin=""), "a binary Excel workbook (.xlsb); save it as .xlsx"),
    "ods": (zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"), ".ods of LibreOffice; save it as .xlsx"),
    "numbers": (zipped(Index__Document_DOT_iwa=""), "a Numbers file; choose File > Export to > CSV or Excel"),
    "docx": (zipped(word__document_DOT_xml=""), "a Word document (.docx); copy its table into a spreadsheet"),
    "pptx": (zipped(ppt__presentation_DOT_xml=""), "a PowerPoint file (.pptx)"),
    "zip": (zipped(voices_DOT_csv="audio_url"), "a zip archive; unpack it, and name the spreadsheet that is inside"),
    "damaged zip": (zipped(voices_DOT_csv="audio_url")[:-30], "damaged or truncated; save or download it again"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7-Zip archive; unpack it"),
    "rar": (b"Rar!\x1a\x07\x01\0", "a RAR archive; unpack it"),
    "tar": (tarred(), "a tar archive; unpack it"),
    "bz2": (b"BZh91AY&SY1234", "compressed with bzip2; decompress it"),
    "xz": (b"\xfd7zXZ\0\0", "compressed with xz; decompress it"),
    "zst": (b"\x28\xb5\x2f\xfd\x24", "compressed with Zstandard; decompress it"),
    "gzip inside": (gzip.compress(b"audio_url"), "compressed with gzip inside gzip; decompress it"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "a PDF; open the spreadsheet that it was made from"),
    "mp3": (b"ID3\x04\0\0\0\0\0\0", "an MP3 recording; name the file that lists the recordings"),
    "mp3 without tags": (b"\xff\xfb\x90\x64" + bytes(400), "an MP3 recording; name the file"),
    "wav": (recorded(), "a WAV recording; name the file that lists the recordings"),
    "m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0", "an M4A or MP4 file; name a CSV, Excel or JSON file"),
    "flac": (b"fLaC\0\0\0\x22", "a FLAC file; name a CSV, Excel or JSON file"),
    "ogg": (b"OggS\0\2" + bytes(20), "an Ogg file; name a CSV, Excel or JSON file"),
    "aac": (b"\xff\xf1\x50\x80", "an AAC file"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "a picture; name a CSV, Excel or JSON file"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture"),
    "heic": (b"\0\0\0\x24ftypheic\0\0\0\0", "a picture"),
    "sqlite": (database(), "an SQLite database; export the table as CSV UTF-8"),
    "parquet": (b"PAR1\x15\4\x15", "a Parquet file; export it as CSV UTF-8 or JSON Lines"),
    "html": (b"<!DOCTYPE html>\n<html><title>Log in</title>", "an HTML page, perhaps a login page that was saved"),
    "xml": (b'<?xml version="1.0"?><rows/>', "XML or HTML, perhaps a login page"),
    "xls that is HTML": (b"<table><tr><td>audio_url</td>", "open it in a spreadsheet program and save it as .xlsx"),
    "xml of Excel 2003": (b'<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>', "Excel 2003; save it"),
    "fods": (
        b'<?xml version="1.0"?>\n<office:document office:version="1.3">',
        "a flat OpenDocument spreadsheet (.fods)",
    ),
    "gnumeric": (b'<?xml version="1.0"?>\n<gnm:Workbook xmlns:gnm="x">', "a Gnumeric spreadsheet (.gnumeric); save it"),
    "dif": (b'TABLE\r\n0,1\r\n"EXCEL"\r\n', "a DIF spreadsheet (.dif); save it as .xlsx"),
    "slk": (b"ID;PWXL;N;E\r\nP;PGeneral\r\n", "a SYLK spreadsheet (.slk); save it as .xlsx"),
    "slk of LibreOffice": (b"ID;PSCALC3\nC;Y1;X1;K1\n", "a SYLK spreadsheet (.slk); save it as .xlsx"),
    "rtf": (rb"{\rtf1\ansi", "an RTF document; copy the table into a spreadsheet"),
    "program": (b"\x7fELF\2\1\1" + bytes(20), "a program; name a CSV"),
    "binary": (b"\x01\x02\x03audio_url\x07\n", "binary, neither text nor a workbook"),
}


@pytest.mark.parametrize(("content", "cure"), WRONG.values(), ids=WRONG)
def test_a_wrong_type_is_named_with_its_cure(content: bytes, cure: str) -> None:
    """By its content; the message is one short printable sentence. A file and a pipe give the same."""
    error = file_error(content)

    assert cure in error
    assert error.isascii()
    assert error.isprintable()
    assert len(error) < 250
    with pytest.raises(UnreadableFileError) as raised:
        piped(content)
    assert str(raised.value) == error


def test_an_excel_workbook_is_refused_where_it_cannot_be_read() -> None:
    """A request body is neither spooled nor unpacked."""
    with pytest.raises(UnreadableFileError, match="send the rows as CSV UTF-8"):
        RowReader(io.BytesIO(zipped(xl__workbook_DOT_xml="")), ReadOptions(allow_excel=False))


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    """Before anything is opened."""
    with pytest.raises(UnreadableFileError, match="is a folder; name a file in it"), open_rows(tmp_path):
        pass
    with pytest.raises(UnreadableFileError, match="No such file"), open_rows(tmp_path / "voices.csv"):
        pass


def test_a_path_is_opened_by_its_content(tmp_path: Path) -> None:
    """Plain or gzip, and with any name."""
    path = tmp_path / "voices.xlsx"
    for content in (f"audio_url\n{A}\n".encode(), gzip.compress(f"audio_url\n{A}\n".encode())):
        path.write_bytes(content)
        with open_rows(path) as rows:
            assert [row.to_job("b").audio_url for row in rows] == [A]


def test_gzip_of_a_wrong_type_is_named() -> None:
    """The content decides."""
    with pytest.raises(UnreadableFileError, match="a PDF"):
        RowReader(decompressed(io.BytesIO(gzip.compress(b"%PDF-1.7"))))
