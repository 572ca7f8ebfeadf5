"""The command `keys new`."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope


def test_a_new_key_is_shown_once_with_the_line_for_the_gateway(command: Command) -> None:
    """Both on standard output, the explanation on standard error."""
    ended = command("keys", "new", "shop", "--scope", "enqueue", "--scope", "read")

    assert ended.code == 0
    key, line = ended.out.splitlines()
    [configured] = api_keys.parse_keys(line.removeprefix("VOICEQUEUE_API_KEYS="))
    assert api_keys.find_key([configured], key) == configured
    assert (configured.name, configured.scopes) == ("shop", frozenset({Scope.ENQUEUE, Scope.READ}))
    assert "shown only now" in ended.err


def test_the_json_of_a_new_key(command: Command) -> None:
    """With the same names."""
    output = command("keys", "new", "shop", "--scope", "operate", "--json").json()

    assert api_keys.find_key(api_keys.parse_keys(output["line"]), output["key"])
    assert (output["name"], output["scopes"]) == ("shop", ["operate"])


@pytest.mark.parametrize("arguments", [["shop"], ["a b", "--scope", "read"], ["shop", "--scope", "all"]])
def test_an_invalid_key_is_wrong_usage(command: Command, arguments: list[str]) -> None:
    """An invalid name, or no scope."""
    ended = command("keys", "new", *arguments)

    assert (ended.code, ended.out) == (2, "")
