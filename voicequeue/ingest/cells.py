"""Cells of a CSV file that no spreadsheet program calculates, whichever separator it takes. Pure.

A program that splits at `;` or tabs does not know that a comma's file has quoted them: what follows one of them there
begins a cell. A `'` before it makes a text of it, and `unguarded` takes exactly those away again.
"""

from __future__ import annotations

import re
from typing import Any

from voicequeue.texts import json_text

#: Where a cell ends, in a program that splits at another sign than the file's own.
_ENDS = r";|\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029"

#: What does not keep what follows from being a formula: spaces, quotes, and what shows as nothing. No sign that ends a
#: cell is among them, so that no text is looked at twice.
_HIDDEN = r"\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_BEFORE = rf"""(?:[^\S{_ENDS}]|["'{_HIDDEN}])*"""

#: Begins a formula: =, +, - and @, also as wide, small, raised and mathematical signs, which some programs take for the
#: same: all that Unicode's compatibility mapping (NFKC) makes one of them of.
_SIGN = r"[=+\-@\u207a-\u207c\u208a-\u208c\u2212\u2a75\u2a76\ufb29\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20]"

#: Where a cell begins.
_START = rf"(?<![^{_ENDS}])"

_FORMULA = re.compile(f"{_START}(?={_BEFORE}{_SIGN})")
_GUARDED = re.compile(f"{_START}'(?={_BEFORE}{_SIGN})")


def guarded(text: str) -> str:
    """Return `text` with a `'` before everything in it that a spreadsheet program would calculate."""
    return _FORMULA.sub("'", text)


def unguarded(text: str) -> str:
    """Return the text that was `guarded`."""
    return _GUARDED.sub("", text)


def json_cell(value: Any) -> str:
    """Return JSON for a cell, in which nothing needs a guard nor an escape: programs read it as it is."""
    text = json_text(value)
    return text if guarded(text) == text else text.replace(";", r"\u003b").replace("|", r"\u007c")
