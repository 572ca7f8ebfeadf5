"""The text of a script: its action, preceded by those definitions of the shared parts that it needs.

Lua creates each function of a script again in each call. Functions that many calls do not enter are therefore lazy:
they are created when they are called first, with all that they need.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

#: The shared parts; a definition depends only on those before it.
PARTS = (
    "keys",
    "format",
    "audit_log",
    "tombstones",
    "summaries",
    "backlog",
    "budgets",
    "flow_control",
    "refusals",
    "orders",
    "outbox",
    "callbacks",
    "archive",
    "transition",
    "records",
    "cancellation",
    "shared_voices",
    "hard_budgets",
    "admission",
    "stop_loss",
    "batches",
    "removal",
    "erasure",
    "paging",
    "filters",
    "search",
)

#: Functions that many calls do not enter: they are created when they are called first, with all that they need.
LAZY = frozenset(
    {
        "add_holds_of_batch",
        "add_holds_of_limits",
        "add_message_id",
        "add_unsettled",
        "append_audit_entry",
        "clear_refusal",
        "count_order",
        "count_outcome",
        "drop_summaries",
        "drop_summary",
        "drop_summary_of",
        "end_trial",
        "end_trials",
        "enqueue_callbacks",
        "enqueue_settled_callback",
        "is_other_recording",
        "join_lane",
        "needed_checks",
        "record_refusal",
        "schedule_archiving",
        "settle_waiting",
        "share_voice",
        "stop_at_limit",
        "try_early_trial",
        "upstream_accepted",
        "usage_of",
        "use_if_created",
        "use_voice",
        "voice_created",
        "voice_stage_changed",
        "write_batch_callback",
        "write_callback",
        "write_job_callback",
    }
)

#: Definitions of one level. To capture a variable, Lua searches those of the same level that were captured before; one
#: of an outer level needs no search.
LEVEL = 30

#: The most variables that a function of Lua captures.
UPVALUES_MAX = 60

#: One definition of a part, with its comment and what follows it up to the next one.
DEFINITION = re.compile(r"(?:^--.*\n)*^local .*\n(?:(?!--|local ).*\n)*", re.MULTILINE)

#: The names that a definition defines.
_LOCALS = re.compile(r"^local (?:function )?([\w, ]+?) *(?:=|\(|$)", re.MULTILINE)

#: What holds no names of definitions: comments, texts, and fields of tables.
_OTHER = re.compile(r"--.*|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|(?<![.])[.:]\w+")

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A definition of a shared part: the names that it defines, and the words that may be names of others."""

    text: str
    names: frozenset[str]
    words: frozenset[str]

    @property
    def is_lazy(self) -> bool:
        """Return whether most calls do not enter this function."""
        return not self.names.isdisjoint(LAZY)

    @property
    def is_variable(self) -> bool:
        """Return whether this is neither a function nor a constant, whose name is in capitals."""
        return "local function " not in self.text and not all(name.isupper() for name in self.names)


def assemble(start: str, action: str) -> str:
    """Return the text of a script: its start, the definitions that its action needs, and the action."""
    shared = [definition for part in PARTS for definition in definitions_of(text_of(f"lib/{part}"))]
    return _in_levels(start, _needed(words_of(action), shared), action)


def _needed(words: frozenset[str], definitions: Sequence[Definition]) -> list[Definition]:
    """Return those definitions that a text with these words needs.

    A lazy one has copies of the functions and constants that it needs inside it, because to capture them takes time in
    each call; it shares variables.
    """
    needed = _reached(words, definitions)
    behind = {lazy: _behind(lazy, definitions) for lazy in needed if lazy.is_lazy}
    times = Counter(definition for reached in behind.values() for definition in reached if definition.is_variable)
    if shared := [variable for variable in times if variable not in needed and times[variable] > 1]:
        return _needed(words.union(*(variable.names for variable in shared)), definitions)
    outer = [definition for definition in needed if definition.is_variable]
    return [
        _on_first_call(definition, [inner for inner in behind[definition] if inner not in outer])
        if behind.get(definition)
        else definition
        for definition in needed
    ]


def _behind(lazy: Definition, definitions: Sequence[Definition]) -> list[Definition]:
    """Return the definitions that a lazy function needs."""
    return _reached(lazy.words, definitions[: definitions.index(lazy)], with_lazy=True)


def _reached(words: frozenset[str], definitions: Sequence[Definition], *, with_lazy: bool = False) -> list[Definition]:
    """Return the definitions that a text with these words reaches: past lazy ones only if `with_lazy`."""
    reached = []
    for definition in reversed(definitions):
        if not words.isdisjoint(definition.names):
            reached.append(definition)
            if with_lazy or not definition.is_lazy:
                words |= definition.words
    return reached[::-1]


def _on_first_call(lazy: Definition, behind: Sequence[Definition]) -> Definition:
    """Return the definition of a function that is created, with what only it needs, when it is called first."""
    [name] = lazy.names
    inner = _needed(lazy.words, behind)
    function = lazy.text.replace(f"local function {name}(", f"function {name}(", 1)
    text = f"local {name}\nfunction {name}(...)\n{_text(inner)}{function}return {name}(...) end\n"
    words = lazy.words.union(*(definition.words for definition in inner))
    return Definition(text, lazy.names, words.difference(*(definition.names for definition in inner)))


def _in_levels(start: str, definitions: Sequence[Definition], action: str) -> str:
    """Return the text of a script whose later definitions and action are inside functions."""
    text, levels, outer = f"{start}\n", 0, frozenset(names_of(start))
    level: list[Definition] = []
    later = [words_of(action)]
    for definition in reversed(definitions):
        later.append(later[-1] | definition.words)
    for definition, words in zip(definitions, reversed(later), strict=False):
        names = outer.union(*(other.names for other in level))
        if len(level) >= LEVEL and len(names & words) <= UPVALUES_MAX:
            text += f"{_text(level)}return (function()\n"
            levels, level, outer = levels + 1, [], names
        level.append(definition)
    return f"{text}{_text(level)}{action}{' end)()' * levels}"


def _text(definitions: Sequence[Definition]) -> str:
    return "".join(definition.text for definition in definitions)


@cache
def definitions_of(text: str) -> tuple[Definition, ...]:
    """Return the definitions of a shared part."""
    return tuple(
        Definition(definition, frozenset(names_of(definition)), words_of(definition))
        for definition in DEFINITION.findall(text)
    )


@cache
def text_of(name: str) -> str:
    """Return the text of a script, or of a shared part, such as `lib/keys`."""
    return (files(__package__ or __name__) / f"{name}.lua").read_text(encoding="utf-8")


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text of Lua that may be names of definitions."""
    return frozenset(_WORD.findall(_OTHER.sub(" ", text)))


def names_of(text: str) -> list[str]:
    """Return the names that a text of Lua defines for what follows it."""
    return [name.strip() for names in _LOCALS.findall(text) for name in names.split(",")]
