"""Scripts are assembled from shared definitions; what is needed by some calls only is created when it is."""

from __future__ import annotations

import pytest
from redis import Redis

from voicequeue.storage.scripts import assembly

SHARED = """
local function often() return 'often' end

-- A definition that shows how often it is created.
local created = redis.call('INCR', KEYS[1])
local function inner() return created end

local function lazy(text)
  return text .. inner() .. often()
end

local function unused() return 1 end
"""


def assemble(monkeypatch: pytest.MonkeyPatch, shared: str, action: str) -> str:
    """Assemble a script whose only shared part is this text."""
    monkeypatch.setattr(assembly, "PARTS", ("part",))
    monkeypatch.setattr(assembly, "LAZY", frozenset({"lazy"}))
    monkeypatch.setattr(assembly, "text_of", {"lib/part": shared}.__getitem__)
    return assembly.assemble("local FIRST = 1", f"local function action() {action} end return action()")


def test_what_a_lazy_function_needs_is_created_with_its_first_call(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not created in a call that does not enter the function, and once in one that does so twice."""
    script = assemble(monkeypatch, SHARED, "return ARGV[1] == '' and often() or lazy(ARGV[1]) .. lazy('and ')")

    assert redis.eval(script, 1, prefix, "") == "often"
    assert redis.exists(prefix) == 0
    assert redis.eval(script, 1, prefix, "first ") == "first 1oftenand 1often"
    assert redis.get(prefix) == "1"


def test_a_script_has_only_what_its_code_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, texts and fields with the name of a definition do not name it."""
    script = assemble(monkeypatch, SHARED, "return often('lazy', t.inner) -- unused")

    assert assembly.names_of(script) == ["FIRST", "often", "action"]


def test_what_several_lazy_functions_need_is_shared(redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is created once."""
    shared = SHARED.replace(
        "local function unused", "local function also_lazy() return inner() end\nlocal function unused"
    )
    script = assemble(monkeypatch, shared, "return lazy('') .. also_lazy()")

    assert redis.eval(script, 1, prefix) == "1often1"


def test_a_script_may_have_any_number_of_definitions(
    redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in levels, each within the number of variables that Lua captures."""
    names = [f"name_{number}" for number in range(150)]
    shared = "".join(f"local function {name}(n) return n + FIRST end\n" for name in names)
    used = [names[50 * part : 50 * part + 50] for part in range(3)]
    shared += "".join(
        f"local function sum_{part}() return {'(0)+'.join(names)}(0) end\n" for part, names in enumerate(used)
    )
    script = assemble(monkeypatch, shared, "return sum_0() + sum_1() + sum_2()")

    assert redis.eval(script, 1, prefix) == 150
    assert script.count("return (function()") > 1
