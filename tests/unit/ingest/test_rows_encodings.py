"""Encodings of text files: recognized for the whole file before the first row."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Callable

import pytest

from tests.unit.ingest.files import A, B, file, file_error, jobs, piped, row_error, rows
from voicequeue.ingest.compression import DamagedFileError, decompressed
from voicequeue.ingest.row import ReadOptions, Row, UnreadableFileError
from voicequeue.ingest.row_reader import RowReader

LINES = f"audio_url,name\n{A},Björn\n{B},Ωμέγα\n"


@pytest.mark.parametrize(
    ("content", "has_bom"),
    [
        (LINES.encode(), False),
        (codecs.BOM_UTF8 + LINES.encode(), True),
        (codecs.BOM_UTF16_LE + LINES.encode("utf-16-le"), True),
        (codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"), True),
    ],
    ids=["UTF-8", "UTF-8 with BOM", "UTF-16 LE", "UTF-16 BE"],
)
@pytest.mark.parametrize("read", [rows, piped])
def test_unicode_is_read_with_its_mark(content: bytes, has_bom: bool, read: Callable[..., list[Row]]) -> None:
    """Files and pipes; the format records the mark."""
    assert [job.name for job in jobs(read(content, end=b""))] == ["Björn", "Ωμέγα"]
    assert RowReader(io.BytesIO(content)).format.has_bom is has_bom


TEXTS = {
    "cp1252": ["Björn", "Señor Ñandú", "l’été – “ça va”"],
    "cp1251": ["Привет мир. Это песня о доме"],
    "cp1250": ["Łukasz śpiewa żółtą piosenkę o święcie"],
    "cp1254": ["Şarkı söyle güneş doğarken ışıkla gelsin"],
    "cp932": ["こんにちは世界、これは歌です"],
    "gb18030": ["你好世界这是一首关于家的歌曲"],
}


@pytest.mark.parametrize(("codec", "text"), [(codec, text) for codec, texts in TEXTS.items() for text in texts])
def test_another_encoding_is_named_with_its_line_before_the_first_row(codec: str, text: str) -> None:
    """The cure is in the error: the option with which the file is read."""
    content = f"audio_url,name\n{A},Ana\n\n{B},{text}\n".encode(codec)

    error = file_error(content.removesuffix(b"\n"))
    parsed = list(RowReader(io.BytesIO(content), ReadOptions(encoding=codec)))

    assert error.startswith("line 4 is not UTF-8; it looks like ")
    assert f"save the file as CSV UTF-8, or pass --encoding {codec}" in error
    assert jobs(parsed)[1].name == text


def test_the_message_names_windows_1252_as_people_know_it() -> None:
    """The commonest case, word for word."""
    assert file_error(f"audio_url,name\n{A},J\xfcrgen".encode("cp1252")) == (
        "line 2 is not UTF-8; it looks like Windows-1252 (Western European): save the file as CSV UTF-8, or pass "
        "--encoding cp1252"
    )


def test_an_invalid_byte_is_noticed_far_from_the_start() -> None:
    """After megabytes of valid rows, some of them at the border of two pieces that are read."""
    count = 60_000
    content = b"\xef\xbb\xbfaudio_url,name\n" + f"{A},ä\n".encode() * count + f"{B},B\xf6\n".encode("latin-1")

    assert file_error(content.removesuffix(b"\n")).startswith(f"line {count + 2} is not UTF-8, but other lines are")


def test_a_file_in_two_encodings_is_named_as_such() -> None:
    """Neither encoding would be right for all lines."""
    error = file_error("audio_url,name", f"{A},Björn Ångström".encode(), f"{B},J\xfcrgen".encode("latin-1"))

    assert error.startswith("line 3 is not UTF-8, but other lines are: the file mixes two encodings; correct that line")


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named_and_read_with_the_option(codec: str) -> None:
    """Programs write it."""
    content = LINES.encode(codec)
    parsed = list(RowReader(io.BytesIO(content), ReadOptions(encoding=codec)))

    assert f"UTF-16 without a byte order mark; save it as CSV UTF-8, or pass --encoding {codec}" in file_error(content)
    assert [job.name for job in jobs(parsed)] == ["Björn", "Ωμέγα"]


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "idna", "a\0b", "x" * 500, ""])
def test_an_unknown_encoding_is_an_error_with_examples(name: str) -> None:
    """Also codecs of Python that are no encodings of files."""
    with pytest.raises(UnreadableFileError, match="examples are utf-8, utf-16, cp1252") as raised:
        RowReader(file("audio_url", A), ReadOptions(encoding=name))
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(("content", "encoding"), [(codecs.BOM_UTF8, "cp1252"), (codecs.BOM_UTF16_LE, "utf-8")])
def test_an_encoding_that_contradicts_the_mark_is_an_error(content: bytes, encoding: str) -> None:
    """The mark would be part of the first column."""
    with pytest.raises(UnreadableFileError, match="leave out --encoding"):
        RowReader(io.BytesIO(content + b"audio_url\n"), ReadOptions(encoding=encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "ascii"])
def test_an_encoding_that_is_right_changes_nothing(encoding: str) -> None:
    """With and without a mark."""
    for mark in (b"", codecs.BOM_UTF8) if encoding != "ascii" else (b"",):
        content = mark + f"audio_url\n{A}\n".encode()
        assert jobs(list(RowReader(io.BytesIO(content), ReadOptions(encoding=encoding)))) == jobs(rows("audio_url", A))


def test_a_file_that_is_not_in_the_encoding_of_the_option_is_an_error() -> None:
    """The line is named."""
    with pytest.raises(UnreadableFileError, match="line 2 is not ascii; pass the --encoding"):
        RowReader(io.BytesIO(LINES.encode()), ReadOptions(encoding="ascii"))


def test_invalid_utf16_in_a_pipe_rejects_only_its_own_row() -> None:
    """Half a character is no text."""
    text = codecs.BOM_UTF16_LE + "audio_url,name\n".encode("utf-16-le")
    bad = f"{A},".encode("utf-16-le") + b"\x00\xd8" + "\n".encode("utf-16-le")

    first, last = piped(text + bad + f"{B},Bo\n".encode("utf-16-le"), end=b"")

    assert row_error(first).startswith("name: contains half a character")
    assert last.to_job("b").name == "Bo"


def test_a_compressed_file_is_checked_as_a_whole_too() -> None:
    """For its encoding and its end, before the first row."""
    whole = gzip.compress(LINES.encode())
    western = gzip.compress(LINES.replace("Ωμέγα", "Jo").encode("cp1252"))

    assert [job.name for job in jobs(list(RowReader(decompressed(io.BytesIO(whole)))))] == ["Björn", "Ωμέγα"]
    with pytest.raises(UnreadableFileError, match="Windows-1252"):
        RowReader(decompressed(io.BytesIO(western)))
    with pytest.raises(DamagedFileError, match="damaged or truncated"):
        RowReader(decompressed(io.BytesIO(whole[:-9])))


def test_reading_begins_where_the_file_is() -> None:
    """A part of the file may have been read before."""
    source = io.BytesIO(b"skipped\n" + LINES.encode())
    source.readline()

    assert [row.line for row in RowReader(source)] == [2, 3]
