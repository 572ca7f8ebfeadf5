"""A reader, who follows a page from its first block to its last and compares what it shows."""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

from tests.support.docs.blocks import Block
from tests.support.docs.comparing import compare_lines, compare_values, parse_documented, parse_values
from tests.support.docs.shell import Shell
from voicequeue.testing import FakeQueue

OUTPUTS = ("text", "json", "http")


class PageEndedError(Exception):
    """A block has not ended, so those after it cannot be run."""


class Reader:
    """Runs the blocks of one page.

    `placeholders` are the words that a reader replaces, each with the values for its first, second … occurrence; the
    last one is used for all others. `prepared` are commands that were run before, with what they printed.
    """

    def __init__(
        self,
        shell: Shell,
        *,
        placeholders: Mapping[str, list[str]],
        prepared: Mapping[str, Callable[[], str]],
        names: Mapping[str, Any],
    ) -> None:
        self._shell = shell
        self._placeholders = {name: list(values) for name, values in placeholders.items()}
        self._prepared = prepared
        self._names = dict(names)
        self._learned: dict[str, str] = {}
        self._output: str | None = None
        self.problems: list[str] = []

    def read(self, blocks: list[Block]) -> list[str]:
        """Follow these blocks; return what does not work as documented."""
        with suppress(PageEndedError):
            for block, following in zip_longest(blocks, blocks[1:]):
                self._follow(block, following)
        return self.problems

    def _follow(self, block: Block, following: Block | None) -> None:
        if block.not_run or block.run_by:
            self._output = None
        elif block.language == "sh":
            self._run(block, _shows(following))
        elif block.language == "python":
            self._execute(block)
        elif block.language in OUTPUTS and not block.example:
            self._compare(block)

    # ── commands ──────────────────────────────────────────────────────────────────────────────────

    def _run(self, block: Block, shows: Callable[[str], bool]) -> None:
        if prepare := self._prepared.get(block.text.strip()):
            self._output = prepare()
            return
        try:
            if block.first:
                self._shell.run(replace(block, text=block.first, ends=""))
            outcome = self._shell.run(replace(block, text=self._filled(block.text)), enough=shows)
        except (TimeoutError, EOFError) as error:
            self.problems.append(f"{block.place} does not end:\n{error}")
            raise PageEndedError from error
        self._output = outcome.output
        wrong = [failed for failed in outcome.failed if failed.partition(" ")[0] != block.exits]
        if wrong or (block.exits != "0" and not outcome.failed):
            self.problems.append(f"{block.place} exits: {wrong or 'with 0'}\n{outcome.output}")

    def _filled(self, text: str) -> str:
        for name, values in self._placeholders.items():
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", partial(_next, values), text)
        for documented, real in self._learned.items():
            text = text.replace(documented, real)
        return text

    def _execute(self, block: Block) -> None:
        printed = io.StringIO()
        try:
            code = compile(self._filled(block.text), block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with redirect_stdout(printed):
                if inspect.iscoroutine(waiting := eval(code, self._names)):
                    asyncio.run(waiting)
                self._run_tests()
        except Exception as error:
            self.problems.append(f"{block.place}: {type(error).__name__}: {error}")
        self._output = printed.getvalue()

    def _run_tests(self) -> None:
        """Run the tests that a block defines, with the fixture of `voicequeue.testing`."""
        for name in [name for name in self._names if name.startswith("test_")]:
            function = self._names.pop(name)
            if [*inspect.signature(function).parameters] == ["voicequeue_queue"]:
                with FakeQueue() as queue:
                    function(queue)

    # ── outputs ───────────────────────────────────────────────────────────────────────────────────

    def _compare(self, block: Block) -> None:
        if self._output is None:
            self.problems.append(f"{block.place} is not the output of a block that is run: say which with a comment")
            return
        compare = {"text": compare_lines, "json": _compare_json, "http": _compare_http}[block.language]
        differences, learned = compare(block.text, self._output)
        self._learned |= learned
        if differences:
            self.problems.append(f"{block.place} shows what is not printed: {differences}\nprinted:\n{self._output}")


def _shows(following: Block | None) -> Callable[[str], bool]:
    """Return the condition that an output contains what the page shows next."""
    if following is None or following.language != "text":
        return bool
    return lambda printed: not compare_lines(following.text, printed)[0]


def _next(values: list[str], _: re.Match[str]) -> str:
    return values.pop(0) if len(values) > 1 else values[0]


def _compare_json(expected: str, actual: str) -> tuple[list[str], dict[str, str]]:
    try:
        documented, real = parse_documented(expected), parse_values(actual)
    except ValueError as error:
        return [f"no JSON: {error}"], {}
    return compare_values(documented, real)


def _compare_http(expected: str, actual: str) -> tuple[list[str], dict[str, str]]:
    head, _, body = expected.partition("\n\n")
    real_head, _, real_body = actual.replace("\r\n", "\n").partition("\n\n")
    missing, learned = compare_lines("\n".join(sorted(head.splitlines())), "\n".join(sorted(real_head.splitlines())))
    differences, more = _compare_json(body, real_body)
    return missing + differences, learned | more
