"""Read rows from JSON as a stream: JSON Lines, one array of objects, or objects one after the other on any lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from voicequeue.ingest.json_row import json_row
from voicequeue.ingest.lines import LINE_ENDS, ROW_MAX, Lines, RowTooLong
from voicequeue.ingest.row import JSON_COLUMNS, FileFormat, FileKind, Position, ReadOptions, Row

_CUT = "; the file may be cut off here"


def starts_with_json(lines: Lines) -> bool:
    """Return whether a text begins with a JSON object or array. Returns what it reads to `lines`."""
    read = []
    while (piece := lines.read_piece()) and not piece.strip():
        read.append(piece)
    lines.rewind("".join((*read, piece)))
    return piece.lstrip().startswith(("{", "["))


def json_rows(lines: Lines, options: ReadOptions, *, has_bom: bool = False) -> JsonLines | JsonDocument:
    """Return the rows of a JSON file, by the way it is written."""
    is_document = _is_document(lines)
    return (JsonDocument if is_document else JsonLines)(lines, options, has_bom=has_bom)


def _is_document(lines: Lines) -> bool:
    """Return whether values take several lines, or several are on one. Returns what it reads to `lines`.

    JSON Lines have an object on their first line, or, if that is damaged, on the next.
    """
    read: list[str] = []
    first = _next_line(lines, read)
    is_document = first.startswith("[") or (not _is_json(first) and not _next_line(lines, read).startswith("{"))
    lines.rewind("".join(read))
    return is_document


def _next_line(lines: Lines, read: list[str]) -> str:
    """Return the next line that is not blank, up to ROW_MAX characters, and add all that was read."""
    line = ""
    while piece := lines.read_piece():
        read.append(piece)
        line = (line + piece).lstrip()
        if line.startswith("[") or len(line) > ROW_MAX or (line and piece.endswith(LINE_ENDS)):
            break
    return line


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class JsonLines:
    """The rows of a file with a JSON object on each line."""

    columns = JSON_COLUMNS

    def __init__(self, lines: Lines, options: ReadOptions, *, has_bom: bool = False) -> None:
        self._lines = lines
        self._options = options
        self.format = FileFormat(FileKind.JSON, has_bom=has_bom)

    @property
    def position(self) -> Position:
        """The place after the last row."""
        return Position(self._lines.number, self._lines.number)

    def skip_to(self, position: Position) -> None:
        """Skip the lines before a former `position` without parsing them."""
        self._lines.skip(position.lines - self._lines.number)

    def __iter__(self) -> Iterator[Row]:
        lines = self._lines
        while True:
            lines.start_row()
            try:
                text = next(lines).strip()
            except StopIteration:
                return
            except RowTooLong as error:
                yield Row(lines.number, {}, None, str(error), (), lines.number)
                continue
            if text:
                yield json_row(lines.number, lines.number, text, self._options, cut="" if lines.is_complete else _CUT)


#: A text, which cannot contain a line end (group 1 is its last quote), or a bracket.
_STEP = re.compile(r'"(?:[^"\\\r\n]|\\[^\r\n])*+("?)|[{}\[\]]')
_SCALAR = re.compile(r'"(?:[^"\\\r\n]|\\[^\r\n])*+"?|[^\s,\]{\[]+')
_SPACE = re.compile(r"\s*")


class _DamagedJson(ValueError):
    """JSON after which no further element can be read."""


class JsonDocument:
    """The elements of a JSON array, or objects one after the other, as rows. They are numbered from 1.

    Each element may take ROW_MAX characters. After one that does not end, nothing is read.
    """

    columns = JSON_COLUMNS

    def __init__(self, lines: Lines, options: ReadOptions, *, has_bom: bool = False) -> None:
        self._lines = lines
        self._options = options
        self._text, self._at = "", 0  # a piece of the file, and the place in it
        self._is_array = self._is_finished = False
        self._number = 0
        self._line = 0  # of the element's start
        self.format = FileFormat(FileKind.JSON, has_bom=has_bom)

    @property
    def position(self) -> Position:
        """The place after the last element."""
        return Position(self._lines.number, self._number)

    def skip_to(self, position: Position) -> None:
        """Skip the elements before a former `position`."""
        try:
            while self._number < position.rows and self._start_element():
                self._element()
        except _DamagedJson:
            self._is_finished = True

    def __iter__(self) -> Iterator[Row]:
        try:
            while not self._is_finished and self._start_element():
                yield json_row(self._line, self._number, self._element(), self._options)
        except _DamagedJson as error:
            self._is_finished = True
            yield Row(self._line, {}, None, str(error), (), self._number)

    def _start_element(self) -> bool:
        """Go to the next element, and count it. Returns False at the end. Raises _DamagedJson."""
        needs_comma = self._is_array and self._number > 0
        while sign := self._next_sign():
            if sign == "[" and self._number == 0 and not self._is_array:
                self._is_array = True
            elif sign == "," and needs_comma:
                needs_comma = False
            elif sign == "]" and self._is_array and (needs_comma or not self._number):
                self._at += 1
                if self._next_sign():
                    raise self._damaged("the file continues after the end of its array")
                return False
            elif sign in ",]" or needs_comma:
                raise self._damaged(f"{sign!r} is not expected here")
            else:
                self._line, self._number = self._lines.number, self._number + 1
                return True
            self._at += 1
        if self._is_array:
            raise self._damaged("the array is not closed by ']', so the file may be cut off here")
        return False

    def _damaged(self, reason: str) -> _DamagedJson:
        """Return the error of something that is no element, and counts as one."""
        self._line, self._number = self._lines.number, self._number + 1
        return _DamagedJson(_unread(reason))

    def _next_sign(self) -> str:
        """Return the next character that is no space; '' at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            self._text, self._at = self._lines.read_piece(), 0
            if not self._text:
                return ""

    def _element(self) -> str:
        """Return the text of the element here, and go to its end. Raises _DamagedJson."""
        if self._text[self._at] not in "{[":
            scalar = _SCALAR.match(self._text, self._at)
            text = scalar[0] if scalar else self._text[self._at]
            self._at += len(text)
            return text
        parts: list[str] = []
        size = depth = 0
        while True:
            depth, end, is_whole = self._scan(depth)
            parts.append(self._text[self._at : end])
            size += end - self._at
            self._at = end
            if is_whole:
                return "".join(parts)
            self._read_further(size)

    def _scan(self, depth: int) -> tuple[int, int, bool]:
        """Return the depth of brackets, the place up to which it is certain, and whether the element ends there."""
        for match in _STEP.finditer(self._text, self._at):
            sign = match[0][0]
            if sign == '"':
                if not match[1]:
                    return depth, match.start(), False
                continue
            depth += 1 if sign in "{[" else -1
            if depth == 0:
                return depth, match.end(), True
        return depth, len(self._text), False

    def _read_further(self, size: int) -> None:
        """Read the next piece of an element of which `size` characters were read."""
        rest = self._text[self._at :]
        if rest.endswith(LINE_ENDS):
            raise _DamagedJson(_unread("a text is not closed on its line"))
        if size + len(rest) > ROW_MAX:
            raise _DamagedJson(_unread(f"an object has more than {ROW_MAX:,} characters; is one not closed?"))
        piece = self._lines.read_piece()
        if not piece:
            raise _DamagedJson(_unread("the object that begins here is not closed, so the file may be cut off"))
        self._text, self._at = rest + piece, 0


def _unread(reason: str) -> str:
    return f"not readable as JSON: {reason}; nothing after it was read"
