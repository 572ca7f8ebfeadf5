"""The commands `keys`."""

from __future__ import annotations

import pytest

from tests.store.conftest import Command
from voicequeue import VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.auth.callback_secrets import SecretCipher, root_marks
from voicequeue.cli.terminal import format_time
from voicequeue.storage.heartbeats import CALLBACK_ROOTS
from voicequeue.storage.job_store import JobStore

#: Root secrets of callbacks.
ROOT, NEW, OTHER = "whsec_own", "whsec_new", "whsec_other"


def test_a_new_key_is_shown_once_with_the_line_for_the_gateway(command: Command) -> None:
    """Both on standard output, the explanation on standard error."""
    ended = command("keys", "new", "--print-only", "shop", "--scope", "enqueue", "--scope", "read")

    assert ended.code == 0
    key, line = ended.out.splitlines()
    [configured] = api_keys.parse_keys(line.removeprefix("VOICEQUEUE_API_KEYS="))
    assert api_keys.find_key([configured], key) == configured
    assert (configured.name, configured.scopes) == ("shop", frozenset({Scope.ENQUEUE, Scope.READ}))
    assert "shown only now" in ended.err


def test_the_json_of_a_new_key(command: Command) -> None:
    """With the same names."""
    output = command("keys", "new", "--print-only", "shop", "--scope", "operate", "--json").json()

    assert api_keys.find_key(api_keys.parse_keys(output["line"]), output["key"])
    assert (output["name"], output["scopes"]) == ("shop", ["operate"])


def test_a_new_key_says_what_it_reaches_and_ends(command: Command) -> None:
    """A key of all namespaces is an operator's, and the first one ends the local token."""
    first = command("keys", "new", "shop", "--scope", "read").err
    assert ("acts in all namespaces" in first, "no longer accept the local token" in first) == (True, True)
    second = command("keys", "new", "web", "--namespace", "web", "--scope", "read").err
    assert ("all namespaces" in second, "local token" in second) == (False, False)


def test_a_changed_key_is_returned_as_json(command: Command) -> None:
    """As the list shows it, and without its secret, which only `new` and `rotate` print."""
    secret = command("keys", "new", "shop", "--scope", "read", "--json").json()["secret"]

    edited = command("keys", "edit", "shop", "--scope", "enqueue", "--requests-per-s", "5", "--json").json()
    assert (edited["scopes"], edited["requests_per_s"]) == (["enqueue"], 5)
    revoked = command("keys", "revoke", "shop", "--json")
    assert revoked.json()["revoked_at"] is not None
    assert command("keys", "list", "--json").json() == [revoked.json()]
    assert secret not in revoked.out
    assert command("keys", "edit", "shop", "--scope", "read", "--json").code == 2


def test_a_key_has_a_budget_and_a_limit_of_jobs_in_flight(command: Command) -> None:
    """A change of one leaves the others, and `--no-limits` removes those that are not given."""
    limits = ("--max-in-flight", "2", "--budget-day", "60", "--budget-month", "600")
    command("keys", "new", "shop", "--scope", "enqueue", *limits)

    edited = command("keys", "edit", "shop", "--budget-day", "80", "--json").json()
    assert [edited[name] for name in ("max_in_flight", "budget_day", "budget_month")] == [2, 80, 600]
    edited = command("keys", "edit", "shop", "--budget-day", "80", "--no-limits", "--json").json()
    assert [edited[name] for name in ("max_in_flight", "budget_day", "budget_month")] == [None, 80, None]
    assert command("keys", "edit", "shop", "--max-in-flight", "-1").code == 2


def test_an_edit_without_options_is_wrong_usage(command: Command) -> None:
    """It would change nothing, and end the logins of the key."""
    command("keys", "new", "shop", "--scope", "read")

    ended = command("keys", "edit", "shop", "--reason", "a try")

    assert (ended.code, "nothing to change" in ended.err) == (2, True)
    assert [entry["action"] for entry in command("audit-log", "--json").json()] == ["create_api_key"]


def test_a_rotation_says_how_long_the_old_secret_is_accepted(command: Command, valkey_url: str, prefix: str) -> None:
    """The secret alone is on standard output."""
    queue = VoiceQueue(valkey_url, prefix=prefix, namespace="*")
    command("keys", "new", "shop", "--scope", "read")

    ended = command("keys", "rotate", "shop", "--overlap", "1h")
    [key] = queue.api_keys()
    assert f"accept the old secret until {format_time(key.previous_until)}." in ended.err
    assert len(ended.out.splitlines()) == 1
    assert "for 10 seconds at most" in command("keys", "rotate", "shop", "--now").err


def test_a_key_of_the_environment_is_not_printed_as_if_it_had_limits(command: Command) -> None:
    """Its line has no place for them."""
    ended = command("keys", "new", "shop", "--scope", "enqueue", "--print-only", "--budget-day", "60")

    assert (ended.code, ended.out, "no limits" in ended.err) == (2, "", True)


@pytest.mark.parametrize("arguments", [["shop"], ["a b", "--scope", "read"], ["shop", "--scope", "all"]])
def test_an_invalid_key_is_wrong_usage(command: Command, arguments: list[str]) -> None:
    """An invalid name, or no scope."""
    ended = command("keys", "new", "--print-only", *arguments)

    assert (ended.code, ended.out) == (2, "")


def test_a_callback_secret_is_shown_once_and_replaced_with_an_overlap(
    command: Command, monkeypatch: pytest.MonkeyPatch, store: JobStore
) -> None:
    """Only `--rotate` replaces it; `--remove` removes it."""
    monkeypatch.delenv("VOICEQUEUE_CALLBACK_SECRET", raising=False)
    monkeypatch.setenv("VOICEQUEUE_SECRET", "the common secret of all these processes")

    created = command("keys", "callback-secret", "shop")
    again = command("keys", "callback-secret", "shop")
    rotated = command("keys", "callback-secret", "shop", "--rotate", "--overlap", "2d", "--json").json()

    assert created.out.startswith("whsec_")
    assert "shown only now" in created.err
    assert (again.code, again.out) == (1, "")
    assert "--rotate" in again.err
    assert rotated["name"] == "shop"
    assert rotated["secret"] != created.out.strip()
    stored = store.callback_secrets.get("shop")
    assert stored is not None
    assert [old.until - stored.since for old in stored.old] == [2 * 86_400]
    assert command("keys", "callback-secret", "shop", "--rotate", "--overlap", "0s").code == 0  # after a leak
    leaked = store.callback_secrets.get("shop")
    assert leaked is not None
    assert [old for old in leaked.old if old.until > leaked.since] == []
    assert command("keys", "callback-secret", "shop", "--remove").code == 0
    assert command("keys", "callback-secret", "shop", "--remove").code == 1


def test_without_a_root_secret_no_callback_secret_is_created(
    command: Command, monkeypatch: pytest.MonkeyPatch, store: JobStore
) -> None:
    """It could not be encrypted. The error names the settings."""
    monkeypatch.delenv("VOICEQUEUE_CALLBACK_SECRET", raising=False)
    monkeypatch.delenv("VOICEQUEUE_SECRET", raising=False)

    refused = command("keys", "callback-secret", "shop")

    assert (refused.code, refused.out) == (2, "")
    assert "VOICEQUEUE_SECRET" in refused.err
    assert store.callback_secrets.all() == {}


@pytest.mark.parametrize(("theirs", "is_created"), [(OTHER, False), (f"{OTHER} {ROOT}", True), (None, True)])
def test_a_callback_secret_that_the_process_callbacks_cannot_decrypt_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, store: JobStore, theirs: str | None, is_created: bool
) -> None:
    """Its callbacks would wait. During a rotation the root secret that both have encrypts it."""
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", f"{NEW} {ROOT}" if is_created else ROOT)
    facts = {} if theirs is None else {CALLBACK_ROOTS: root_marks(theirs.split())}
    store.heartbeats["callbacks"].record("callbacks-1", store.clock(), facts)

    result = command("keys", "callback-secret", "shop")

    assert result.code == int(not is_created)
    if is_created:
        stored = store.callback_secrets.get("shop")
        assert stored is not None
        cipher = SecretCipher([NEW] if theirs is None else theirs.split())
        assert cipher.decrypt("shop", stored.token) == result.out.strip()
    else:
        assert "callbacks-1" in result.err
        assert ROOT not in result.err
        assert store.callback_secrets.all() == {}


@pytest.mark.parametrize(
    "arguments", [("a b",), ("shop", "--overlap", "1h"), ("shop", "--rotate", "--overlap", "soon"),
                  ("shop", "--rotate", "--overlap", "31d"), ("shop", "--rotate", "--remove")]
)  # fmt: skip
def test_invalid_options_of_a_callback_secret_are_wrong_usage(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Nothing is stored."""
    monkeypatch.setenv("VOICEQUEUE_SECRET", "the common secret of all these processes")

    assert command("keys", "callback-secret", *arguments).code == 2
