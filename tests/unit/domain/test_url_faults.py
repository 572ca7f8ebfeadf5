"""Texts that are no URL: what the error says is wrong with them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import problems, voice
from voicequeue.domain.spec import http_url, parse_stored_spec

PREFIX = "must be an http:// or https:// URL"

COMPUTER = ", not a path on a computer: upload the file and use its public link"
SCHEME = ": write https:// in front of it"
MISSPELLED = ": its beginning is misspelled; write https:// with one colon and two slashes"
PLACEHOLDER = ", not a placeholder: fill in the link, or delete the row"
TEXT_IN_FRONT = ", and nothing else: delete the text in front of the link"
QUOTED = " without quotes or brackets around it"
CLOUD = ", not a name in a cloud storage: use its https:// link, signed if it is not public"
BROWSER = ", not a link that works in one browser only: upload the file and use its public link"
EMAIL = ", not an e-mail address: upload the file and use its public link"
FTP = " that everyone can open in a browser: upload the file and use its public link"
ZERO_WIDTH = " without invisible characters: delete U+200B from it, or type it again"

FAULTS = {
    r"C:\Users\ana\take 1.wav": COMPUTER,
    "c:/music/ana.wav": COMPUTER,
    r"%USERPROFILE%\ana.wav": COMPUTER,
    r"Music\ana.wav": COMPUTER,
    "music/ana.wav": COMPUTER,
    "/Music/ana.mp3": COMPUTER,
    "~/ana.mp3": COMPUTER,
    "../ana.mp3": COMPUTER,
    r"\\server\share\ana.wav": ", not a path in a local network: upload the file and use its public link",
    "file:///C:/ana.wav": ", not a file on a computer: upload the file and use its public link",
    "My Song.mp3": ", not the name of a file: upload the file and use its public link",
    "www.example.com/ana.mp3": SCHEME,
    "example.com/ana.wav": SCHEME,
    "cdn.example.com:8080/ana.wav": SCHEME,
    "//cdn.example.com/ana.wav": SCHEME,
    "http:/recordings.example/ana.wav": MISSPELLED,
    "https//recordings.example/ana.wav": MISSPELLED,
    r"https:\\recordings.example\ana.wav": MISSPELLED,
    "htps://recordings.example/ana.wav": MISSPELLED,
    "ttps://recordings.example/ana.wav": MISSPELLED,
    "https:recordings.example/ana.wav": MISSPELLED,
    "s3a://bucket/ana.wav": CLOUD,
    "gs://bucket/ana.wav": CLOUD,
    "ftp://recordings.example/ana.wav": FTP,
    "data:audio/mpeg;base64,SUQz": BROWSER,
    "blob:https://recordings.example/1": BROWSER,
    "mailto:ana@recordings.example": EMAIL,
    "ana@recordings.example": EMAIL,
    "TODO": PLACEHOLDER,
    "n/a": PLACEHOLDER,
    "-": PLACEHOLDER,
    "?": PLACEHOLDER,
    "<NA>": PLACEHOLDER,
    "k.A.": PLACEHOLDER,
    "(leer)": PLACEHOLDER,
    "Loading...": PLACEHOLDER,
    "Ana: https://recordings.example/ana.wav": TEXT_IN_FRONT,
    "Link to the file:\nhttps://recordings.example/ana.wav": TEXT_IN_FRONT,
    '=HYPERLINK("https://recordings.example/ana.wav")': ", not a formula: paste the link itself, as text",
    "#N/A": ", not an error of the spreadsheet: correct its cell",
    '"https://recordings.example/ana.wav"': QUOTED,
    "<https://recordings.example/ana.wav>": QUOTED,
    "\u201chttps://recordings.example/ana.wav\u201d": QUOTED,
    "[Ana](https://recordings.example/ana.wav)": QUOTED,
    "\u200bhttps://recordings.example/ana.wav": ZERO_WIDTH,
    "https://recordings.example/ana\u200b.wav": ZERO_WIDTH,
    "https://recordings.example/take 1.wav": " without spaces: remove the space, or write %20 for it",
    "https://recordings.example/a\u00a0b.wav": " without spaces: remove the space, or write %20 for it",
    "https://recordings.example/a\nb.wav": " on one line: remove the line breaks",
    "https://a.example/1.wav https://b.example/2.wav": (
        ", not several in one cell: give each recording a row of its own"
    ),
    "https://a.example/1.wav\nhttps://b.example/2.wav": (
        ", not several in one cell: give each recording a row of its own"
    ),
    "https:///ana.wav": " with a valid host name after https://",
    "https://recordings.example:99999/a.wav": " with a valid host name and port after https://",
}


@pytest.mark.parametrize("text", FAULTS, ids=ascii)
def test_each_kind_of_text_that_is_no_url_has_a_sentence_of_its_own(text: str) -> None:
    """At every door, for recordings and callbacks alike, with the cure."""
    assert problems(audio_url=text) == {"audio_url": f"{PREFIX}{FAULTS[text]}"}
    assert problems(callback_url=text) == {"callback_url": f"{PREFIX}{FAULTS[text]}"}


@given(st.text(max_size=40) | st.sampled_from(list(FAULTS)).flatmap(lambda text: st.permutations(text).map("".join)))
def test_the_sentence_never_depends_on_private_parts_of_the_text(text: str) -> None:
    """Any text is a URL, or rejected with one of a fixed set of sentences, so that none can quote it."""
    try:
        assert http_url(text) == text
    except ValueError as error:
        reason = str(error)
        fixed = reason.startswith(PREFIX) and "U+" not in reason
        assert fixed or "delete U+" in reason or reason.startswith("contains half a character")


@pytest.mark.parametrize("text", ["x" * 100_000, "a." * 50_000 + "!", "https://" + " " * 100_000, "-" * 100_000 + "!"])
def test_a_long_text_is_described_at_once(text: str) -> None:
    """No pattern backtracks."""
    started = time.perf_counter()
    with pytest.raises(ValueError, match="must be"):
        http_url(text)

    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("name", ["größe", "\u200dاسم", "👩\u200d🎤", "Ana\u2019s"])
def test_letters_of_any_script_may_be_in_a_url(name: str) -> None:
    """Characters that join letters and emoji are part of names."""
    assert voice(audio_url=f"https://recordings.example/{name}.wav")


def test_a_stored_job_stays_readable_whatever_this_release_rejects() -> None:
    """A job whose URL an earlier release accepted is not lost by an upgrade."""
    url = "https://recordings.example/ana\u200b.wav"

    assert parse_stored_spec(f'{{"audio_url":"{url}"}}').audio_url == url
