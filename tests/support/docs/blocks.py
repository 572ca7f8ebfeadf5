"""The fenced blocks of the pages, with the comments that say why one is not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\S*)$")
_COMMENT = re.compile(r" *<!-- (?P<key>not run|run by|example|answer|exits|first|ends): (?P<value>.+?) -->$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    `not_run` is the reason why it is not run, `run_by` the test that runs it instead. `example` says why an output
    cannot be had from the block before. `answer` is what the reader types at each question, `exits` the documented
    exit code, and `first` a command for what the reader has done in the meantime. `ends` is `Ctrl-C` for a stream.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str = ""
    run_by: str = ""
    example: str = ""
    answer: str = ""
    exits: str = "0"
    first: str = ""
    ends: str = ""

    @property
    def place(self) -> str:
        """File and line, as editors understand them."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page in their order. Raises ValueError for a block that does not end."""
    return list(_blocks(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8").splitlines()))


def every_block() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    numbered = iter(enumerate(lines, 1))
    comments: dict[str, str] = {}
    for number, line in numbered:
        if comment := _COMMENT.match(line):
            comments[comment["key"].replace(" ", "_")] = comment["value"]
        elif fence := _FENCE.match(line):
            yield Block(page, number, fence["language"], _body(page, numbered, fence["indent"]), **comments)
            comments = {}
        elif line.strip():
            comments = {}


def _body(page: str, numbered: Iterator[tuple[int, str]], indent: str) -> str:
    body: list[str] = []
    for _, line in numbered:
        if line == f"{indent}```":
            return "".join(f"{text}\n" for text in body)
        body.append(line.removeprefix(indent))
    raise ValueError(f"{page}: a block does not end")


def indented_blocks(page: Path) -> list[str]:
    """Return places of code that is indented instead of fenced."""
    places, in_fence, in_list, before = [], False, False, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            in_fence = not in_fence
        elif not in_fence:
            if line[:1].strip():
                in_list = bool(re.match(r"(-|\d+\.) ", line))
            if not before.strip() and re.match(" {8}" if in_list else " {4}", line):
                places.append(f"{page.relative_to(ROOT)}:{number}")
        before = line
    return places
