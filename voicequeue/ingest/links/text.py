"""Slips in the text of a URL: HTML codes, punctuation of a sentence, several URLs, placeholders. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from voicequeue.ingest.links.finding import Finding, Link

_ENTITY = re.compile(r"&(?:amp|quot|lt|gt|nbsp|#0*38|#x0*26);", re.IGNORECASE)
_SEVERAL = re.compile(r"[,;|]https?://|\.(?:mp3|wav)https?://", re.IGNORECASE)
_CUT_OFF = re.compile(r"(?:\.{2,}|\u2026)$")
_PUNCTUATION = re.compile(r"[.,;:!?)\]}>\"'`\u2018-\u201f\u00ab\u00bb]+$")
_ENDS_AS_AUDIO = re.compile(r"\.(?:mp3|wav)$", re.IGNORECASE)
_TEMPLATE = re.compile(r"\{[^}]*\}|<[^>]*>|%7B\w*%7D|\bYOUR[_-]")
_TEMPLATE_SIGNS = ("{", "<", "%7B", "YOUR")
_INVISIBLE_CODE = re.compile(r"%(?:E2%80%8[B-F]|E2%81%A0|EF%BB%BF|C2%A0|C2%AD|(?:20|0A|0D|09)$)", re.IGNORECASE)
_NO_CODE = re.compile(r"%(?:25(?:20|2F|3A|C3)|(?![0-9A-F]{2}))", re.IGNORECASE)


def text_findings(url: str, link: Link) -> Iterator[Finding]:
    """Yield the slips in the text of a URL. Each is searched for only if a character of it occurs."""
    if "&" in url and _ENTITY.search(url):
        yield Finding(
            "html_code",
            "contains &amp; or another HTML code where the link has a single character: copy the link from the "
            "address bar, or replace each &amp; by &",
        )
    if "\\" in url:
        yield Finding("backslash", "contains \\ where a link has /: replace each \\ by /")
    if url.count("://") > 1 and (match := _SEVERAL.search(url)):
        is_certain = "?" not in url[: match.start()]
        yield Finding("several_links", "contains several links: give each recording a row of its own", is_certain)
    if not url[-1].isalnum():
        yield from _at_the_end(url)
    if link.fragment and _ENDS_AS_AUDIO.search(link.fragment) and not _ENDS_AS_AUDIO.search(link.path):
        yield Finding("fragment", "contains #, and nothing after it is sent: write %23 for each # of the file's name")
    if any(sign in url for sign in _TEMPLATE_SIGNS) and _TEMPLATE.search(url):
        yield Finding("placeholder", "contains a placeholder, such as {id}: fill it in", is_certain=False)
    if "%" in link.path:
        yield from _in_codes(link.path)


def _at_the_end(url: str) -> Iterator[Finding]:
    if _CUT_OFF.search(url):
        yield Finding("cut_off", "ends with dots, as a link that was shortened for display: copy the whole link")
    elif match := _PUNCTUATION.search(url):
        is_certain = _ENDS_AS_AUDIO.search(url[: match.start()]) is not None
        yield Finding("punctuation", "ends with a punctuation mark that is no part of it: delete the mark", is_certain)


def _in_codes(path: str) -> Iterator[Finding]:
    if _INVISIBLE_CODE.search(path):
        yield Finding(
            "invisible_code", "contains the code of an invisible character, such as %E2%80%8B: delete it", False
        )
    if _NO_CODE.search(path):
        yield Finding(
            "wrong_code", "contains a % that is no code, or was encoded twice (%2520): copy the link again", False
        )
