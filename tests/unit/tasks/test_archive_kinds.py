"""File types from the first bytes, and safe file names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.server.media import build_file
from tasks.archive.file_types import file_extension
from tasks.archive.storage import safe_name
from voicequeue.domain.states import ClipPart


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (build_file("c", "mp3", 1_000).body, "mp3"),
        (b"\xff\xfb\x90\xc4", "mp3"),
        (b"\xff\xf3\x40\xc0", "mp3"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "wav"),
        (b"RIFF\n\n\n\nWAVE", "wav"),
        (b"fLaC\x00", "flac"),
        (b"OggS\x00", "ogg"),
        (b"\x00\x00\x00\x20ftypM4A ", "m4a"),
        (b"\xff\xf1\x50\x80", "aac"),
        (b"<!DOCTYPE html>", None),
        (b'{"error": "gone"}', None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"\x00\x00\x00\x20ftypavif", None),
        (b"", None),
    ],
)
def test_the_first_bytes_determine_an_audio_type(head: bytes, name: str | None) -> None:
    """The URL and the Content-Type are ignored."""
    assert file_extension(ClipPart.AUDIO, head) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (build_file("c", "png", 0).body, "png"),
        (b"\xff\xd8\xff\xe0", "jpg"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "webp"),
        (b"GIF89a", "gif"),
        (b"\x00\x00\x00\x20ftypavif", "avif"),
        (b"ID3\x03", None),
        (b"<svg xmlns=", None),
    ],
)
def test_the_first_bytes_determine_an_image_type(head: bytes, name: str | None) -> None:
    """SVG is rejected, because a browser runs scripts in it."""
    assert file_extension(ClipPart.IMAGE, head) == name


def test_safe_names_are_unchanged() -> None:
    """These are ids of jobs and clips, and names of batches."""
    assert [safe_name(name) for name in ("spring", "0f8fad5b-d9cb-469f-a165-70867728950e", "_", "a.b_c-d")] == [
        "spring",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "_",
        "a.b_c-d",
    ]


@given(
    st.text() | st.sampled_from(["..", ".", "", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "a\x00b", "x" * 500])
)
def test_no_name_escapes_its_folder(name: str) -> None:
    """Names are not hidden or too long either, and different names stay different."""
    result = safe_name(name)

    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", result)
    assert result == name or result.startswith("x-")
    assert result != safe_name(name + "!")
