"""The command: keys for the gateway."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope


def test_a_new_key_is_shown_once_with_the_line_for_the_gateway(command: Command) -> None:
    """Both on standard output, explained on standard error."""
    ended = command("keys", "new", "shop", "--scope", "enqueue", "--scope", "read")

    assert ended.code == 0
    key, line = ended.out.splitlines()
    [configured] = api_keys.parse(line.removeprefix("VOICEQUEUE_API_KEYS="))
    assert api_keys.holder([configured], key) == configured
    assert (configured.name, configured.scopes) == ("shop", frozenset({Scope.ENQUEUE, Scope.READ}))
    assert "shown only now" in ended.err


def test_scripts_get_a_new_key_as_json(command: Command) -> None:
    """With the same names."""
    told = command("keys", "new", "shop", "--scope", "operate", "--json").json()

    assert api_keys.holder(api_keys.parse(told["line"]), told["key"])
    assert (told["name"], told["scopes"]) == ("shop", ["operate"])


@pytest.mark.parametrize("arguments", [["shop"], ["a b", "--scope", "read"], ["shop", "--scope", "all"]])
def test_a_key_that_cannot_be_is_wrong_usage(command: Command, arguments: list[str]) -> None:
    """No name without a meaning, no key without a scope."""
    ended = command("keys", "new", *arguments)

    assert (ended.code, ended.out) == (2, "")
