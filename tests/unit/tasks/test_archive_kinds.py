"""What a file is by how it begins, and names that are nothing but names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.server.media import build_file
from tasks.archive.file_types import file_extension
from tasks.archive.storage import safe_name
from voicequeue.domain.job import ClipPart


@pytest.mark.parametrize(
    ("beginning", "name"),
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
def test_audio_is_known_by_how_it_begins(beginning: bytes, name: str | None) -> None:
    """Whatever its link or its server calls it."""
    assert file_extension(ClipPart.AUDIO, beginning) == name


@pytest.mark.parametrize(
    ("beginning", "name"),
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
def test_covers_are_known_by_how_they_begin(beginning: bytes, name: str | None) -> None:
    """Pictures, and no text that a browser would run."""
    assert file_extension(ClipPart.IMAGE, beginning) == name


def test_plain_names_stay_as_they_are() -> None:
    """Ids of jobs and clips, names of batches."""
    assert [safe_name(name) for name in ("spring", "0f8fad5b-d9cb-469f-a165-70867728950e", "_", "a.b_c-d")] == [
        "spring",
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "_",
        "a.b_c-d",
    ]


@given(
    st.text() | st.sampled_from(["..", ".", "", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "a\x00b", "x" * 500])
)
def test_whatever_a_name_is_it_cannot_leave_its_folder(name: str) -> None:
    """Nor be hidden, nor too long; two names that differ stay different."""
    found = safe_name(name)

    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", found)
    assert found == name or found.startswith("x-")
    assert found != safe_name(name + "!")
