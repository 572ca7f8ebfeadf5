"""Flower's settings and its presentation of tasks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from config.flower import format_task, lacks_required_login, load
from config.settings import SettingsError


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_flower_needs_no_login(address: str) -> None:
    """No other machine can reach it."""
    assert not lacks_required_login(address, "")


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "10.0.0.7", "flower.internal"])
def test_anywhere_else_flower_does_not_start_without_a_login(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The error names the setting and its format."""
    assert lacks_required_login(address, "")
    assert not lacks_required_login(address, "me:long")
    if address:  # an empty environment variable counts as unset
        monkeypatch.setenv("FLOWER_ADDRESS", address)
        with pytest.raises(SettingsError, match="FLOWER_BASIC_AUTH: is required"):
            load()
        monkeypatch.setenv("FLOWER_BASIC_AUTH", "me:long-and-random,you:longer-and-random")
        assert load().logins() == ["me:long-and-random", "you:longer-and-random"]


def test_beyond_this_machine_flower_does_not_start_with_a_short_password() -> None:
    """The error names the user and not the password. On this machine only, Flower starts."""
    logins = "me:eleven-char,you:twelve-chars"
    for address in ("0.0.0.0", "::", "10.0.0.7", "flower.internal"):
        with pytest.raises(
            SettingsError, match="FLOWER_BASIC_AUTH: the password of me has fewer than 12 char"
        ) as refused:
            load(address=address, basic_auth=logins)
        assert "eleven" not in str(refused.value)
    assert load(address="127.0.0.1", basic_auth=logins).weak_passwords()
    assert not load(address="0.0.0.0", basic_auth="you:twelve-chars").weak_passwords()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, set()),
        (
            {"allowed_hosts": "voices.example,Ops.Example,[2001:db8::1]"},
            {"voices.example", "ops.example", "2001:db8::1"},
        ),
        ({"address": "::1", "basic_auth": "me:long"}, set()),
        ({"address": "0.0.0.0", "basic_auth": "me:long-and-random"}, None),
        (
            {"address": "0.0.0.0", "basic_auth": "me:long-and-random", "allowed_hosts": "voices.example"},
            {"voices.example"},
        ),
    ],
)
def test_flower_answers_to_any_host_name_only_with_a_login_beyond_this_machine(
    settings: dict[str, str], names: set[str] | None
) -> None:
    """Otherwise a site whose name resolves to 127.0.0.1 could use Flower through a browser (DNS rebinding)."""
    assert load(**settings).accepted_hosts() == names


@pytest.mark.parametrize("hosts", ["voices.example:80", "https://voices.example", "a, b", "me@here"])
def test_a_host_of_flower_is_a_name_without_a_port(hosts: str) -> None:
    """Anything else would never match a request."""
    with pytest.raises(SettingsError, match="FLOWER_ALLOWED_HOSTS: must be host names without ports"):
        load(allowed_hosts=hosts)


@pytest.mark.parametrize("login", ["me", "me:", ":secret", "me:long,you"])
def test_an_invalid_login_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    """A part of it may be a password."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", login)

    with pytest.raises(SettingsError) as refused:
        load()

    assert str(refused.value) == "FLOWER_BASIC_AUTH: must be user:password; separate several with commas"


def test_each_queue_has_its_own_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two Flowers in one folder neither show nor overwrite each other's history."""
    assert load().history_file("a") != load().history_file("b")
    monkeypatch.setenv("FLOWER_DB", "/var/lib/flower/state")
    assert str(load().history_file("a")) == "/var/lib/flower/state"


@pytest.mark.parametrize(
    ("name", "args", "shown"),
    [
        ("voice.submit", "(['aaaa'],)", "voice, job aaaa"),
        ("music.poll", "[['aaaa', 'bbbb']]", "music, jobs aaaa bbbb"),
        ("music.poll", "(['aaaa', 'bbbb', 'cc...", "music, jobs aaaa bbbb"),
        ("callback.deliver", "(['cb_1'],)", "callback cb_1"),
        ("song.archive", "(['aaaa', 'bbbb'],)", "jobs aaaa bbbb"),
        ("voicequeue.enqueue", "'(hidden)'", "a job from a message"),
        ("celery.ping", "()", "()"),
        (None, None, None),
    ],
)
def test_a_task_is_shown_by_its_stage_and_the_ids_of_its_jobs(name: str, args: str, shown: str) -> None:
    """Tasks of others are shown unchanged."""
    task = format_task(SimpleNamespace(name=name, args=args, kwargs="{}"))

    assert task.args == shown
