"""The Python API: docstrings, the page docs/reference/python.md, and the equal surface of both clients."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import voicequeue
from voicequeue import AsyncVoiceQueue, VoiceQueue

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "python.md"


def methods(client: type) -> dict[str, Callable[..., Any]]:
    """Return the public methods of a client, by name."""
    return {name: method for name, method in inspect.getmembers(client, callable) if not name.startswith("_")}


SYNC, ASYNC = methods(VoiceQueue), methods(AsyncVoiceQueue)

#: Methods that return another client of the same kind, without calling Redis.
COPIES = {"on_behalf_of"}


def test_every_exported_name_has_a_docstring() -> None:
    """The docstring is its own, not inherited."""
    for name in voicequeue.__all__:
        assert vars(getattr(voicequeue, name)).get("__doc__") or inspect.isfunction(getattr(voicequeue, name)), name
        assert inspect.getdoc(getattr(voicequeue, name)), name


def test_every_method_has_a_docstring_that_begins_with_a_summary() -> None:
    """The first line is one sentence or more, and fits the list of methods."""
    for name in sorted(SYNC):
        summary = (inspect.getdoc(SYNC[name]) or "").splitlines()[0]

        assert summary.endswith("."), name
        assert inspect.getdoc(ASYNC[name]), name


def test_the_page_documents_every_public_name_once() -> None:
    """Exported names, and the methods of the client."""
    documented = re.findall(r"^::: voicequeue\.(.+)$", PAGE.read_text(encoding="utf-8"), re.M)

    assert sorted(documented) == sorted([*voicequeue.__all__, *(f"VoiceQueue.{name}" for name in SYNC)])


def test_both_clients_have_the_same_methods() -> None:
    """No method is missing in one of them."""
    assert set(ASYNC) == set(SYNC)


def test_an_async_method_has_the_name_and_the_parameters_of_its_twin() -> None:
    """Names, kinds, defaults and annotations are equal, except that `enqueue_many` also accepts an async iterable."""
    for name in sorted(SYNC):
        ours, theirs = (inspect.signature(kind[name]).parameters.values() for kind in (ASYNC, SYNC))
        widened = {"jobs"} if name == "enqueue_many" else set()

        assert [parameter for parameter in ours if parameter.name not in widened] == [
            parameter for parameter in theirs if parameter.name not in widened
        ]
        assert [parameter.name for parameter in ours] == [parameter.name for parameter in theirs], name
        assert ASYNC[name].__qualname__ == f"AsyncVoiceQueue.{name}", name


def test_an_async_method_is_awaited_or_iterated() -> None:
    """The twin of a method that returns an iterator is an async generator; any other is a coroutine function."""
    for name in sorted(SYNC.keys() - COPIES):
        returns = str(inspect.signature(SYNC[name]).return_annotation)
        twin = ASYNC[name]

        if returns.startswith("Iterator["):
            assert inspect.isasyncgenfunction(twin)
            assert str(inspect.signature(twin).return_annotation) == f"Async{returns}"
        else:
            assert inspect.iscoroutinefunction(twin)
            assert str(inspect.signature(twin).return_annotation) == returns
