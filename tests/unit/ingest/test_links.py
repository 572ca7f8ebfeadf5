"""Checks of URLs that need no request: share pages, private hosts, slips, file types, expired signatures."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicequeue.domain.spec import http_url
from voicequeue.ingest.links import Finding, LinkChecker
from voicequeue.net.address_policy import AddressPolicy

NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC).timestamp()
SETTING = "VOICEQUEUE_AUDIO_ALLOWED_HOSTS"


def check(url: str, *, allowed: str = "", now: float = NOW) -> Finding | None:
    """Return the finding about a URL."""
    return LinkChecker(AddressPolicy.parse(allowed, setting=SETTING), lambda: now).check(url)


def verdict(url: str, *, allowed: str = "", now: float = NOW) -> str | None:
    """Return the kind of the finding, with a `?` if it is doubtful."""
    finding = check(url, allowed=allowed, now=now)
    return None if finding is None else finding.kind + ("" if finding.is_certain else "?")


CLEAN = [
    "https://recordings.example/ana.wav",
    "https://cdn.shop.com/Ana%20B.mp3",
    "https://cdn.shop.com/recordings/17",
    "https://cdn.shop.com/get.php?id=17",
    "https://cdn.shop.com/a.mp3?next=https%3A%2F%2Fshop.com&x=1",
    "https://web.archive.org/web/2020/https://shop.com/a.mp3",
    "https://user:secret@cdn.shop.com:8443/a.wav",
    "http://8.8.8.8/a.wav",
    "http://[2606:4700::1111]/a.wav",
    "https://netflix.com/a.mp3",
    "https://größe.de/lied.mp3",
]


@pytest.mark.parametrize("url", CLEAN)
def test_an_ordinary_link_has_no_finding(url: str) -> None:
    """Also the second time, when its host is known."""
    checker = LinkChecker(AddressPolicy.parse("", setting=SETTING), lambda: NOW)

    assert [checker.check(url), checker.check(url)] == [None, None]


# ── share links ───────────────────────────────────────────────────────────────────────────────────

PAGES = {
    "https://drive.google.com/file/d/1AbC/view?usp=sharing": "drive.google.com/uc?export=download&id=FILE_ID",
    "https://drive.google.com/open?id=1AbC": "anyone who has the link",
    "https://drive.google.com/uc?id=1AbC": "export=download",
    "https://drive.google.com/drive/folders/1AbC": "folder",
    "https://docs.google.com/document/d/1AbC/edit": "Google Docs",
    "https://www.dropbox.com/s/abc/ana.mp3?dl=0": "dl=1",
    "https://www.dropbox.com/scl/fi/abc/ana.mp3?rlkey=x": "dl.dropboxusercontent.com",
    "https://1drv.ms/u/s!abc": "download=1",
    "https://shop-my.sharepoint.com/:u:/g/personal/abc?e=1": "download=1",
    "https://www.icloud.com/iclouddrive/0abc": "button for the download",
    "https://app.box.com/s/abc": "Direct Link",
    "https://we.tl/t-abc": "button for the download",
    "https://soundcloud.com/ana/lied": "player",
    "https://open.spotify.com/track/1": "player",
    "https://www.youtube.com/watch?v=1": "video page",
    "https://YOUTU.BE/1": "video page",
    "https://vimeo.com/1": "video page",
    "https://www.facebook.com/watch?v=1": "video page",
    "https://www.tiktok.com/@ana/video/1": "video page",
    "https://mega.nz/file/abc": "button for the download",
    "https://t.me/ana/17": "signed-in people",
    "https://github.com/ana/songs/blob/main/ana.mp3": "Raw or Download",
    "https://archive.org/details/ana": "/download/",
    "https://www.dropbox.com/transfer/AAAA": "a button for the download",
    "https://www.dropbox.com/t/AAAA": "a button for the download",
    "https://magentacloud.de/s/AbCdEf123456789": "add /download",
    "https://my.hidrive.com/lnk/AbC12": "link for downloads",
    "https://ana.myqnapcloud.com/share.cgi?ssid=0ab": "link for downloads",
    "https://gofile.me/7abc/XyZ": "direct links",
    "https://ana.quickconnect.to/sharing/AbC": "direct links",
    "https://gofile.io/d/abc": "direct links",
    "https://acme.slack.com/files/U1/F1/ana.mp3": "signed-in people",
    "https://files.slack.com/files-pri/T1-F1/ana.mp3": "signed-in people",
    "https://us02web.zoom.us/rec/share/abc": "player",
    "https://share.descript.com/view/abc": "player",
    "https://app.frame.io/reviews/abc": "direct links",
    "https://airtable.com/app1/shr2": "direct links",
    "https://www.udio.com/songs/abc": "player",
    "https://app.suno.ai/song/abc": "player",
    "https://ana.bandcamp.com/track/lied": "player",
    "https://ln5.sync.com/dl/abc": "direct links",
    "https://www.jottacloud.com/s/123abc": "direct links",
    "https://discord.com/channels/1/2/3": "signed-in people",
}


@pytest.mark.parametrize("url", PAGES)
def test_a_share_link_is_rejected_with_the_direct_form(url: str) -> None:
    """A page of a service is never a recording."""
    finding = check(url)

    assert finding is not None
    assert (finding.kind, finding.is_certain) == ("share_link", True)
    assert PAGES[url] in finding.sentence


@pytest.mark.parametrize(
    "url",
    [
        "https://drive.google.com/uc?export=download&id=1AbC",
        "https://drive.usercontent.google.com/download?id=1AbC&export=download",
        "https://www.dropbox.com/s/abc/ana.mp3?dl=1",
        "https://www.dropbox.com/scl/fi/abc/ana.mp3?rlkey=x&dl=1",
        "https://dl.dropboxusercontent.com/s/abc/ana.mp3",
        "https://shop.sharepoint.com/:u:/g/abc?e=1&download=1",
        "https://app.box.com/shared/static/abc.mp3",
        "https://cvws.icloud-content.com/B/ana.wav",
        "https://download.wetransfer.com/eu/ana.mp3?token=x",
        "https://github.com/ana/songs/raw/main/ana.mp3",
        "https://raw.githubusercontent.com/ana/songs/main/ana.mp3",
        "https://archive.org/download/ana/ana.mp3",
        "https://magentacloud.de/s/AbCdEf123456789/download",
        "https://cloud.acme.de/s/AbCdEf123456789/download",
        "https://cloud.acme.de/s/AbCdEf123456789/download/ana.wav",
        "https://cdn1.suno.ai/abc.mp3",
        "https://dl.airtable.com/.attachments/abc/ana.mp3",
        "https://cdn.discordapp.com/attachments/1/2/ana.mp3",
    ],
)
def test_the_direct_form_of_a_share_link_is_accepted(url: str) -> None:
    """It is the one that the sentence about the share link recommends."""
    assert check(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://cloud.acme.de/s/AbCdEf123456789",
        "https://acme.de/index.php/s/AbCdEf123456789/",
        "https://nas.acme.de:5001/sharing/AbCdEfGhI",
        "https://nas.acme.de/share.cgi?ssid=0abc",
    ],
)
def test_a_share_page_of_a_cloud_on_a_host_of_its_own_is_doubtful(url: str) -> None:
    """Its path is usual, but any program may have it. Also the second time, when its host is known."""
    checker = LinkChecker(AddressPolicy.parse("", setting=SETTING), lambda: NOW)
    findings = [checker.check(link) for link in ("https://cloud.acme.de/a.wav", url, url)]

    assert [finding and (finding.kind, finding.is_certain) for finding in findings] == [
        None, ("share_link", False), ("share_link", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "https://www.google.com/url?q=https://cdn.shop.com/a.mp3&sa=D",
        "https://www.google.de/url?url=https%3A%2F%2Fcdn.shop.com%2Fa.mp3",
        "https://eur03.safelinks.protection.outlook.com/?url=https%3A%2F%2Fcdn.shop.com%2Fa.mp3&data=05",
        "https://l.facebook.com/l.php?u=https%3A%2F%2Fcdn.shop.com%2Fa.mp3&h=x",
        "https://slack-redir.net/link?url=https%3A%2F%2Fcdn.shop.com%2Fa.mp3",
    ],
)
def test_a_link_that_another_program_wrapped_is_rejected_with_its_cure(url: str) -> None:
    """It opens a page that asks or forwards; the link of the recording is in it."""
    finding = check(url)

    assert finding is not None
    assert (finding.kind, finding.is_certain) == ("redirect_link", True)
    assert "url=, q= or u=" in finding.sentence


# ── hosts ─────────────────────────────────────────────────────────────────────────────────────────

LOOPBACK = [
    "localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "１２７.０.０.１", "127.0.0.1.",
]  # fmt: skip
PRIVATE = [
    "10.1.2.3", "192.168.0.5", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "[fe80::1]", "[fd00::1]",
    "[fe80::1%25eth0]", "nas", "nas.local", "files.corp.internal", "pc.lan", "a.home.arpa", "shop.test", "a.invalid",
    "fritz.box", "ana.fritz.box", "fritz.nas", "speedport.ip", "easy.box", "routerlogin.net", "tplinkwifi.net",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK + PRIVATE)
def test_a_host_of_a_local_network_is_rejected_in_every_spelling(host: str) -> None:
    """Upstream cannot reach it. Nothing is resolved."""
    assert verdict(f"http://{host}/ana.wav") == "private_host"
    assert verdict(f"http://{host}:8000/ana.wav") == "private_host"


@pytest.mark.parametrize("host", LOOPBACK)
def test_an_allowed_address_is_accepted_in_every_spelling(host: str) -> None:
    """The setting names an address, and each of these is that address."""
    assert check(f"http://{host}/ana.wav", allowed="127.0.0.0/8 ::1 localhost") is None


def test_an_allowed_name_is_accepted() -> None:
    """Also of a service whose pages are otherwise rejected: the operator knows better."""
    assert check("http://nas.local/ana.wav", allowed="nas.local") is None
    assert check("https://soundcloud.com/ana/lied", allowed="soundcloud.com") is None
    assert verdict("http://other.local/ana.wav", allowed="nas.local") == "private_host"


def test_a_local_name_is_doubtful_where_a_network_is_allowed() -> None:
    """It may resolve into that network."""
    assert verdict("http://nas.local/ana.wav", allowed="10.0.0.0/8") == "private_host?"


# ── slips ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cdn.shop.com/a.mp3?x=1&amp;y=2", "html_code"),
        ("https://cdn.shop.com/a\\b.mp3", "backslash"),
        ("https://cdn.shop.com/a.mp3,", "punctuation"),
        ("https://cdn.shop.com/a.mp3).", "punctuation"),
        ("https://cdn.shop.com/a.mp3\u201d", "punctuation"),
        ("https://cdn.shop.com/a.mp3>", "punctuation"),
        ("https://cdn.shop.com/a,", "punctuation?"),
        ("https://cdn.shop.com/a(1)", "punctuation?"),
        ("https://cdn.shop.com/very-lo...", "cut_off"),
        ("https://cdn.shop.com/very-lo\u2026", "cut_off"),
        ("https://cdn.shop.com/a.mp3,https://cdn.shop.com/b.mp3", "several_links"),
        ("https://cdn.shop.com/a.mp3https://cdn.shop.com/b.mp3", "several_links"),
        ("https://cdn.shop.com/a.mp3?s=1,https://cdn.shop.com/b.mp3", "several_links?"),
        ("https://cdn.shop.com/take%20#1.mp3", "fragment"),
        ("https://example.com/ana.mp3", "placeholder?"),
        ("https://cdn.shop.com/{id}.mp3", "placeholder?"),
        ("https://cdn.shop.com/ana%E2%80%8B.mp3", "invisible_code?"),
        ("https://cdn.shop.com/ana.mp3%20", "invisible_code?"),
        ("https://cdn.shop.com/a%2520b.mp3", "wrong_code?"),
        ("https://cdn.shop.com/100%.mp3", "wrong_code?"),
        ("https://bit.ly/3abc", "short_link?"),
        ("https://lnkd.in/abc", "short_link?"),
        ("https://rebrand.ly/abc", "short_link?"),
        ("https://db.tt/abc", "short_link?"),
        ("https://cdn.shop.com/ana.m4a", "other_format?"),
        ("https://cdn.shop.com/ana.FLAC?x=1", "other_format?"),
        ("https://cdn.shop.com/ana.zip", "no_recording"),
        ("https://cdn.shop.com/ana.mp3.html", "no_recording"),
        ("https://cdn.shop.com/ana.html?id=17", "no_recording?"),
        ("https://cdn.shop.com/", "no_recording?"),
        ("https://cdn.shop.com", "no_recording?"),
    ],
    ids=ascii,
)
def test_a_slip_is_rejected_if_it_is_certain_and_reported_if_it_is_doubtful(url: str, expected: str) -> None:
    """Certain is what can never be a recording; a host may serve one under any name."""
    assert verdict(http_url(url)) == expected


def test_a_certain_finding_comes_before_a_doubtful_one() -> None:
    """Only one finding is reported."""
    assert verdict("https://example.com/a.zip") == "no_recording"


# ── expiry ────────────────────────────────────────────────────────────────────────────────────────

SIGNED = {
    "Amazon": "X-Amz-Date=20270115T070000Z&X-Amz-Expires=3600&X-Amz-Signature=0",
    "Google": "X-Goog-Date=20270115T070000Z&X-Goog-Expires=3600&X-Goog-Signature=0",
    "Amazon, old": f"AWSAccessKeyId=A&Expires={NOW:.0f}&Signature=0",
    "CloudFront": f"Expires={NOW:.0f}&Signature=0&Key-Pair-Id=K",
    "Azure": "sv=2024&se=2027-01-15T08%3A00%3A00Z&sp=r&sig=0",
    "Discord": f"ex={int(NOW):x}&is=0&hm=0",
    "milliseconds": f"expires={NOW * 1000:.0f}&token=0",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_a_signed_link_is_rejected_from_its_end_on(query: str) -> None:
    """Before, it is doubtful within an hour of its end, and accepted earlier."""
    url = f"https://bucket.shop.com/ana.wav?{query}"

    assert verdict(url) == verdict(url, now=NOW + 86_400) == "expired_link"
    assert verdict(url, now=NOW - 1) == verdict(url, now=NOW - 3_600) == "expires_soon?"
    assert verdict(url, now=NOW - 3_601) is None
    assert "2027-01-15 at 08:00 UTC" in str(check(url))


@pytest.mark.parametrize(
    "query",
    [
        "expires=1",
        "expires=1700000000",
        "se=x&sig=0",
        "ex=zz&hm=0",
        "X-Amz-Date=20270101T000000Z&X-Amz-Signature=0",
        "X-Amz-Date=x&X-Amz-Expires=9&X-Amz-Signature=0",
        "X-Amz-Date=20270101T000000Z&X-Amz-Expires=99999999999999999999&X-Amz-Signature=0",
        "Expires=never&Signature=0",
    ],
)
def test_an_end_that_is_unknown_is_no_finding(query: str) -> None:
    """Neither is the word `expires` without a signature."""
    assert check(f"https://bucket.shop.com/ana.wav?{query}") is None


# ── all of them ───────────────────────────────────────────────────────────────────────────────────

urls = st.builds(
    "{}{}/{}{}".format,
    st.sampled_from(["http://", "https://"]),
    st.sampled_from(["cdn.shop.com", "drive.google.com", "127.1", "[::1]", "nas", "x@y.com:80"]),
    st.text(alphabet="aé/.%&;,{}<>#?=\\\u2026w3", max_size=12),
    st.sampled_from(["", ".mp3", "?SECRET-QUERY=1", "?se=SECRET&sig=SECRET", "#SECRET.wav"]),
)


@given(urls)
def test_no_sentence_quotes_the_link(url: str) -> None:
    """Signatures and paths may be secret; any valid URL has a verdict."""
    finding = check(url)

    assert finding is None or ("SECRET" not in finding.sentence and url not in finding.sentence)


def test_the_hosts_of_a_file_are_remembered_within_limits() -> None:
    """A file with a host for each row takes no memory for them, and is checked in time."""
    checker = LinkChecker(AddressPolicy.parse("", setting=SETTING), lambda: NOW)
    started = time.process_time()
    for number in range(25_000):
        assert checker.check(f"https://h{number}.shop.com/a.mp3") is None

    assert time.process_time() - started < 5
    assert len(checker._hosts) <= 10_000
