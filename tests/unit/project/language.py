"""Rules for the language of code and documentation, and a reader for Python, Lua and text files."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Archaic idiom, and verbs for people that code cannot do.
BANNED_WORDS = re.compile(
    r"\b(nobody|somebody|whoever|whatever|whichever|told|tells?|telling|heard|hears?|lest|anew|begun|luck|stands?|stood|"
    r"goes on|went on|going on|came of|become of|became of|becomes? of|of the one|the same with|let go|lets go|"
    r"looks? after|looked after|so many seconds|patience|troubles?|at all(?! times)|for ever|any more)\b",
    re.IGNORECASE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Participles and fillers that do not name what a variable holds.
BANNED_NAMES = _words(
    "found told each given about chosen taken known came wanted asked seen become became heard said left got made gone "
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
Documented = ast.Module | ast.ClassDef | Function


@dataclass(frozen=True)
class Finding:
    """A passage that breaks a rule."""

    file: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


@cache
def findings_of(file: Path) -> list[Finding]:
    """Return the findings in a Python, Lua, Markdown or other text file, in order of lines."""
    check = _CHECKS.get(file.suffix, _banned_in)
    text = file.read_text(encoding="utf-8")
    return [Finding(file, line, problem) for line, problem in sorted(check(text))]


def undocumented(file: Path) -> list[Finding]:
    """Return the public module, classes and functions of a Python file that have no docstring.

    Overrides and overloads need none.
    """
    return [
        Finding(file, getattr(node, "lineno", 1), f"no docstring: {getattr(node, 'name', 'the module')}")
        for node in _public(ast.parse(file.read_bytes()))
        if ast.get_docstring(node, clean=False) is None and not _is_exempt(node)
    ]


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    """Yield a public module or class, and what it publishes."""
    yield node
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                yield from _public(child)
            else:
                yield child


def _is_exempt(node: Documented) -> bool:
    decorators = [] if isinstance(node, ast.Module) else [ast.unparse(item) for item in node.decorator_list]
    return any(name.split(".")[-1] in ("override", "overload") for name in decorators)


def _banned_in(text: str, line: int = 1) -> Iterator[tuple[int, str]]:
    for match in BANNED_WORDS.finditer(text):
        yield line + text.count("\n", 0, match.start()), f"the word {match[0]!r}"


def _lua(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        yield from _banned_in(line.partition("--")[2], number)


def _python(text: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    for node in _definitions(tree):
        yield from _opening(node)
    if _MAY_ASSIGN.search(text):
        yield from _names(tree)
    if BANNED_WORDS.search(text):
        yield from _strings(tree)
        yield from _comments(text)


_CHECKS: dict[str, Callable[[str], Iterator[tuple[int, str]]]] = {".py": _python, ".lua": _lua}

#: Finds a banned name where Python may assign or define it; faster than a walk over all nodes.
_MAY_ASSIGN = re.compile(rf"\b_*({'|'.join(BANNED_NAMES)})_*\b(?=\s*([=:,)\]+*/|&(-]|in\b))", re.IGNORECASE)


def _definitions(node: ast.Module | ast.stmt) -> Iterator[Documented]:
    """Yield a module, class or function, and those in its statements."""
    if isinstance(node, Documented):
        yield node
    for name in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(node, name, ()):
            yield from _definitions(child)


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        name = _assigned(node)
        if name.lower().strip("_") in BANNED_NAMES:
            yield getattr(node, "lineno", 0), f"the name {name!r}"


def _assigned(node: ast.AST) -> str:
    """Return the name that a node assigns or defines; '' for other nodes."""
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else ""
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, ast.ClassDef | Function) else ""


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from _banned_in(node.value, node.lineno)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from _banned_in(token.string, token.start[0])


def _opening(node: Documented) -> Iterator[tuple[int, str]]:
    """Check the first word of a docstring. Tests state a promise and may open with any word."""
    docstring = ast.get_docstring(node, clean=False)
    if docstring is None or (isinstance(node, Function) and node.name.startswith("test_")):
        return
    first = re.match(r"\s*[`'\"(]*([\w'’-]*)", docstring)
    word = first[1].lower() if first else ""
    if _is_bad_opening(word, needs_verb=isinstance(node, Function) and not _is_property(node)):
        yield node.body[0].lineno, f"a docstring that opens with {word!r}"


def _is_bad_opening(word: str, *, needs_verb: bool) -> bool:
    if not needs_verb:
        return word in CLAUSES
    return word in NO_VERBS or (word.endswith("s") and not word.endswith("ss"))


def _is_property(function: Function) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
