"""Descriptions of texts that are no URL, for people who fill in a spreadsheet. Pure.

They follow "must be an http:// or https:// URL" and never quote the text, which may be private.
"""

from __future__ import annotations

import re

#: Characters that are not visible, except those that join letters and emoji.
INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb]"
)

_UPLOAD = "upload the file and use its public link"

_FILE_ENDINGS = "mp3|wav|wave|m4a|mp4|aac|flac|ogg|oga|opus|wma|aiff?|webm|mov|avi|mkv|zip|pdf|docx?|xlsx?|txt"

#: Words that people and programs write where a value is missing, in lower case.
_EMPTY_WORDS = frozenset(
    (
        *("none", "null", "nil", "nat", "<na>", "<nan>", "<null>", "<none>", "<leer>", "<empty>", "undefined"),
        *("n/a", "n.a.", "n.a", "n. a.", "n.v.", "n/v", "k.a.", "k.a", "k. a.", "k/a", "keine angabe", "not available"),
        *("todo", "to do", "to-do", "todo:", "fixme", "tbd", "tba", "tbc", "t.b.d.", "[object object]"),
        *("(leer)", "(blank)", "(blanks)", "(empty)", "(none)", "(null)", "(nan)", "(vide)", "(vacío)", "(vuoto)"),
        *("loading", "loading...", "loading…", "wird geladen...", "wird geladen…", "chargement...", "cargando..."),
    )
)
#: Those that are words of a language in another case: Nan and Na are names.
_EMPTY_SPELLINGS = frozenset(("nan", "NaN", "NAN", "-nan", "NA"))
_SIGNS_ONLY = re.compile(r"[-\u2010-\u2015\u2212_.?/*\u2026\s]+")
_EMPTY_MAX = 40
_EMPTY_WORD_MAX = max(map(len, _EMPTY_WORDS))

#: Texts that begin with http:// or https://, and what is wrong with them.
_WITH_SCHEME = (
    (r".+[\s,;|]https?://.*", ", not several in one cell: give each recording a row of its own"),
    (r".*[\r\n].*", " on one line: remove the line breaks"),
    (r".*\s.*", " without spaces: remove the space, or write %20 for it"),
    (r".*[\x00-\x1f\x7f-\x9f].*", " without control characters: copy the link again"),
    (r"https?://[^/?#]*:[^/?#]*([/?#].*)?", " with a valid host name and port after https://"),
    (r".*", " with a valid host name after https://"),
)

_FILL_IN = ", not a placeholder: fill in the link, or delete the row"

_WITHOUT_SCHEME = (
    (r"=.*|[+@-]\s*[A-Z]+\(.*", ", not a formula: paste the link itself, as text"),
    (r"\S.*\shttps?://.*", ", and nothing else: delete the text in front of the link"),
    (r"#[A-Z0-9/_]+[!?]?", ", not an error of the spreadsheet: correct its cell"),
    (r"na|nan|tk|x+|0|yes|no|true|false|pending|missing|unknown|empty|soon|later|link|url", _FILL_IN),
    ("[\"'`<(\\[\u2018-\u201f\u00ab\u2039\u300c-\u300f].*", " without quotes or brackets around it"),
    (r"file:.*", f", not a file on a computer: {_UPLOAD}"),
    (r"[a-z]:[\\/].*|%[a-z]+%[\\/].*|~.*|\.{0,2}/(?!/).*|\.{1,2}\\.*", f", not a path on a computer: {_UPLOAD}"),
    (r"\\\\.*", f", not a path in a local network: {_UPLOAD}"),
    (
        r"(s3[an]?|gs|gcs|azure|az|wasbs?|abfss?|oss|r2|b2|minio|hdfs):.*",
        ", not a name in a cloud storage: use its https:// link, signed if it is not public",
    ),
    (r"(s?ftps?|scp|ssh|smb|webdavs?|davs?|afp|nfs):.*", f" that everyone can open in a browser: {_UPLOAD}"),
    (r"(data|blob|content|about|chrome[a-z-]*|javascript|view-source|filesystem):.*",
     f", not a link that works in one browser only: {_UPLOAD}"),
    (r"mailto:.*|[^\s@/:]+@[^\s@/:]+\.[^\s@/:]+", f", not an e-mail address: {_UPLOAD}"),
    (r"https?[:;]?[/\\]+.*|h?x?x?h?t{1,3}ps?[:;.]*[/\\]+.*|https?[:;].*|h(xx|tt|t|ttt)ps?:.*",
     ": its beginning is misspelled; write https:// with one colon and two slashes"),
    (rf"[^/:?\\]+\.({_FILE_ENDINGS})", f", not the name of a file: {_UPLOAD}"),
    (r"//.*|localhost([:/].*)?|[\w-]+(\.[\w-]+)+(:\d+)?([/?#].*)?|[\w.-]+:\d+([/?#].*)?",
     ": write https:// in front of it"),
    (rf".*\\.*|.*/[^/]+\.({_FILE_ENDINGS})", f", not a path on a computer: {_UPLOAD}"),
)  # fmt: skip

_FLAGS = re.IGNORECASE | re.DOTALL
_HAS_SCHEME = re.compile(r"https?://", _FLAGS)
_RULES_WITH_SCHEME = tuple((re.compile(pattern, _FLAGS), words) for pattern, words in _WITH_SCHEME)
_RULES_WITHOUT_SCHEME = tuple((re.compile(pattern, _FLAGS), words) for pattern, words in _WITHOUT_SCHEME)

#: The characters of a text that are examined; no URL is longer.
_EXAMINED = 2_048


def describe_fault(text: str) -> str:
    """Return what is wrong with a text that is no URL and how to correct it."""
    text = text[:_EXAMINED]
    return f"must be an http:// or https:// URL{_fault(text)}"


def is_placeholder(text: str) -> bool:
    """Return whether a text, without spaces around it, means a missing value on each of its lines."""
    if len(text) > _EMPTY_MAX:
        return False
    if "\n" in text:
        return all(not line or _is_empty(line) for line in map(str.strip, text.split("\n")))
    return _is_empty(text)


def _is_empty(line: str) -> bool:
    if len(line) <= _EMPTY_WORD_MAX and (line in _EMPTY_SPELLINGS or line.casefold() in _EMPTY_WORDS):
        return True
    return not line[:1].isalnum() and _SIGNS_ONLY.fullmatch(line) is not None


def _fault(text: str) -> str:
    if match := INVISIBLE.search(text):
        return f" without invisible characters: delete U+{ord(match[0]):04X} from it, or type it again"
    if is_placeholder(text.strip()):
        return _FILL_IN
    rules = _RULES_WITH_SCHEME if _HAS_SCHEME.match(text) else _RULES_WITHOUT_SCHEME
    return next((words for pattern, words in rules if pattern.fullmatch(text)), "")
