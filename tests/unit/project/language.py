"""Rules for the language of code and documentation, and a reader for Python, Lua and text files."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Archaic idiom, and verbs for people that code cannot do.
BANNED_WORDS = re.compile(
    r"\b(nobody|somebody|whoever|whatever|whichever|told|tells?|telling|heard|hears?|lest|anew|begun|luck|stands?|stood|"
    r"goes on|went on|going on|came of|became of|becomes? of|of the one|the same with|let go|lets go|looks? after|"
    r"looked after|so many seconds|patience|troubles?|at all|for ever|any more)\b",
    re.IGNORECASE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Participles and fillers that do not name what a variable holds.
BANNED_NAMES = _words(
    "found told each given about chosen taken known came wanted asked seen became become heard said left got made gone "
    "held meant"
)

#: Words that open a subordinate clause instead of a sentence or a noun phrase.
CLAUSES = _words("what how whether where that who whose which when why if")

#: Further words that open a function's docstring without an imperative verb.
NO_VERBS = CLAUSES | _words(
    "those these the a an all each its it this there one only every some many also as for from with in of to at by on "
    "true false none not no nothing so same after before until"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Finding:
    """A passage that breaks a rule."""

    file: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


def findings_of(file: Path) -> list[Finding]:
    """Return the findings in a Python, Lua, Markdown or other text file, in order of lines."""
    check = _CHECKS.get(file.suffix, _text)
    return [Finding(file, line, problem) for line, problem in sorted(check(file.read_text(encoding="utf-8")))]


def _banned_in(text: str, line: int) -> Iterator[tuple[int, str]]:
    for match in BANNED_WORDS.finditer(text):
        yield line + text.count("\n", 0, match.start()), f"the word {match[0]!r}"


def _text(text: str) -> Iterator[tuple[int, str]]:
    yield from _banned_in(text, 1)


def _lua(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        yield from _banned_in(line.partition("--")[2], number)


def _python(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            yield from _opening(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from _banned_in(node.value, node.lineno)
        for name in _assigned(node):
            if name.lower().strip("_") in BANNED_NAMES:
                yield getattr(node, "lineno", 0), f"the name {name!r}"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _banned_in(token.string, token.start[0])


_CHECKS: dict[str, Callable[[str], Iterator[tuple[int, str]]]] = {".py": _python, ".lua": _lua}


def _assigned(node: ast.AST) -> Iterator[str]:
    """Yield the name that a node assigns or defines."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name


def _opening(node: ast.Module | ast.ClassDef | Function) -> Iterator[tuple[int, str]]:
    """Check the first word of a docstring. Tests state a promise and may open with any word."""
    docstring = ast.get_docstring(node)
    if docstring is None or (isinstance(node, Function) and node.name.startswith("test_")):
        return
    first = re.match(r"[`'\"(]*([\w'’-]*)", docstring)
    word = first[1].lower() if first else ""
    if _is_bad_opening(word, needs_verb=isinstance(node, Function) and not _is_property(node)):
        yield node.body[0].lineno, f"a docstring that opens with {word!r}"


def _is_bad_opening(word: str, *, needs_verb: bool) -> bool:
    if not needs_verb:
        return word in CLAUSES
    return word in NO_VERBS or (word.endswith("s") and not word.endswith("ss"))


def _is_property(function: Function) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
