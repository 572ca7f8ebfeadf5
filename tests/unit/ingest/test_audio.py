"""Recordings are recognized by their bytes: format, duration, completeness."""

from __future__ import annotations

import hashlib
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.recordings import FRAME, FRAME_S, chunk, id3, mp3, rf64, vbri, wav, xing
from voicequeue.ingest.audio import Audio, AudioReader
from voicequeue.ingest.audio.sniff import UNKNOWN


def read(data: bytes, piece: int = 65_536) -> Audio:
    """Return the properties of a file that is fed in pieces of this size."""
    reader = AudioReader()
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
    return reader.finish()


STEREO = b"\xff\xfb\x90\x44" + bytes(413)
SLOW = b"\xff\xf3\x84\xc4" + bytes(188)  # MPEG-2, 64 kbit/s at 24 kHz
SLOWEST = b"\xff\xe3\x18\xc4" + bytes(68)  # MPEG-2.5, 8 kbit/s at 8 kHz

WHOLE = {
    "frames alone": (mp3(12), "MP3"),
    "with a tag in front": (id3() + mp3(12), "MP3"),
    "with a large tag": (id3(200_000) + mp3(12), "MP3"),
    "with two tags": (id3() + id3(10) + mp3(12), "MP3"),
    "with a tag behind": (mp3(12) + b"TAG" + bytes(125), "MP3"),
    "with an APE tag behind": (mp3(12) + b"APETAGEX" + (2000).to_bytes(4, "little") * 2 + b"\xff\xfb" * 1_008, "MP3"),
    "with silence in front": (bytes(20_000) + mp3(12), "MP3"),
    "with garbage between": (mp3(6) + b"\xff\xfb\x90" * 100 + mp3(6), "MP3"),
    "two in one": (id3() + mp3(6) + id3() + mp3(6), "MP3"),
    "with a tag and padding in front": (id3() + bytes(100_000) + mp3(12), "MP3"),
    "with a tag, padding and garbage in front": (id3() + bytes(100_000) + b"garbage" * 9 + mp3(12), "MP3"),
    "stereo": (mp3(12, frame=STEREO), "MP3"),
    "MPEG-2": (mp3(12, frame=SLOW, frame_s=576 / 24_000), "MP3"),
    "MPEG-2.5": (mp3(12, frame=SLOWEST, frame_s=576 / 8_000), "MP3"),
    "with Info": (id3() + xing(459, 459 * 417 + 417) + mp3(12), "MP3"),
    "with VBRI": (vbri(459, 459 * 417 + 417) + mp3(12), "MP3"),
    "PCM": (wav(12), "WAV"),
    "PCM with other chunks": (wav(12, before=chunk(b"LIST", b"odd"), after=chunk(b"id3 ", id3())), "WAV"),
    "PCM behind a tag": (id3() + wav(12), "WAV"),
    "PCM behind tags and padding": (id3(70_000) + id3() + bytes(1_000) + wav(12), "WAV"),
    "RF64 behind a tag": (id3() + rf64(12), "WAV"),
    "extensible": (wav(12, kind=0xFFFE), "WAV"),
    "float": (wav(12, kind=3), "WAV"),
    "RF64": (rf64(12), "WAV"),
    "streamed, size unknown": (wav(12, declared=0xFFFFFFFF), "WAV"),
    "streamed, size zero": (wav(12, declared=0), "WAV"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_complete_recording_has_its_duration(name: str) -> None:
    """Format, duration, size and hash do not depend on the size of the pieces."""
    data, kind = WHOLE[name]

    for piece in (65_536, 1_000, 7):
        audio = read(data, piece)
        assert (audio.format, audio.missing) == (kind, "")
        assert audio.seconds == pytest.approx(12, abs=0.08)
        assert (audio.size, audio.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (wav(12)[:-20_000], "announces 48,000 bytes of sound, 28,000 are present"),
        (rf64(12)[:-20_000], "announces 48,000 bytes of sound, 28,000 are present"),
        (wav(12)[:30], "ends before the sound begins"),
        ((xing(459, 459 * 417) + mp3(12))[:100_000], "announces 459 frames of sound, 238 are present"),
        ((vbri(459, 459 * 417) + mp3(12))[:100_000], "announces 459 frames of sound, 238 are present"),
        ((xing(0, 459 * 417, flags=2) + mp3(12))[:100_000], "announces 191,403 bytes of sound"),
    ],
    ids=["WAV", "RF64", "WAV without sound", "Info", "VBRI", "Xing with bytes alone"],
)
def test_a_truncated_recording_is_not_complete(data: bytes, missing: str) -> None:
    """The part that its header announces is missing."""
    assert missing in read(data).missing
    assert read(data, 11) == read(data)


def test_the_last_frame_may_be_truncated() -> None:
    """Many encoders leave such an end; the frame is not counted."""
    audio = read(mp3(12)[:-100])

    assert audio.missing == ""
    assert audio.seconds == pytest.approx(458 * FRAME_S)


OTHERS = {
    "an HTML page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "XML or HTML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON": b'{"error": "no such file"}',
    "plain text": b"Not found\r\n",
    "an M4A or MP4 file": b"\0\0\0\x20ftypM4A " + bytes(2_000),
    "an Ogg file": b"OggS\0\x02" + bytes(2_000),
    "a FLAC file": b"fLaC\0\0\0\x22" + bytes(2_000),
    "an AAC file": b"\xff\xf1\x50\x80" + bytes(2_000),
    "an AIFF file": b"FORM\0\0\x10\0AIFF" + bytes(2_000),
    "a WebM or Matroska file": b"\x1aE\xdf\xa3" + bytes(2_000),
    "an MP2 file": b"\xff\xfd\x90\xc4" + bytes(2_000),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(2_000),
    "an empty file": b"",
    UNKNOWN: b"\x01\x02" * 2_000,
}


@pytest.mark.parametrize("description", OTHERS)
def test_other_formats_are_described(description: str) -> None:
    """The name of the file does not matter."""
    audio = read(OTHERS[description])

    assert (audio.format, audio.is_accepted, audio.seconds) == (description, False, 0)
    assert read(OTHERS[description], 3) == audio


def test_a_flac_behind_a_tag_of_mp3_is_a_flac() -> None:
    """Some programs write one."""
    assert read(id3() + OTHERS["a FLAC file"]).format == "a FLAC file"


def test_the_format_is_known_after_the_first_bytes() -> None:
    """So the rest of a file that is not accepted is not downloaded."""
    reader = AudioReader()
    reader.feed(b"OggS" + bytes(600))

    assert reader.format == "an Ogg file"


@given(
    st.binary(max_size=3_000), st.integers(1, 700), st.sampled_from([b"", FRAME * 3, id3(40), wav(0.01), b"\xff" * 40])
)
def test_no_bytes_make_it_fail(data: bytes, piece: int, start: bytes) -> None:
    """Random bytes raise no error, and the size of the pieces makes no difference."""
    assert read(start + data, piece) == read(start + data)


def test_a_song_is_parsed_fast() -> None:
    """Four minutes take less than 50 ms."""
    song = mp3(240)
    started = time.thread_time()
    read(song)
    assert time.thread_time() - started < 0.05


@pytest.mark.parametrize(
    "data",
    [
        mp3(1) + random.Random(7).randbytes(3_000_000) + b"\xff" * 3_000_000,
        id3(0) * 600_000,
        wav(1) + b"junk\0\0\0\0" * 800_000,
        mp3(1, frame=SLOWEST[:72], frame_s=0.072) * 400,
    ],
    ids=["garbage", "tags", "chunks", "frames"],
)
def test_hostile_files_are_parsed_fast(data: bytes) -> None:
    """Six megabytes of the most expensive input take less than a second."""
    started = time.thread_time()
    read(data)
    assert time.thread_time() - started < 1
