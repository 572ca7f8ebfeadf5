"""Flower's settings, and how it shows a task."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from config.flower import format_task, load, open_to_all
from config.settings import BadSettings


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_flower_needs_no_login(address: str) -> None:
    """Nobody else gets there."""
    assert not open_to_all(address, "")


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "10.0.0.7", "flower.internal"])
def test_anywhere_else_flower_does_not_start_without_a_login(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """It names the setting, and what it takes."""
    assert open_to_all(address, "")
    assert not open_to_all(address, "me:long")
    if address:  # in the environment an empty value is none
        monkeypatch.setenv("FLOWER_ADDRESS", address)
        with pytest.raises(BadSettings, match="FLOWER_BASIC_AUTH: is required"):
            load()
        monkeypatch.setenv("FLOWER_BASIC_AUTH", "me:long-and-random,you:longer-and-random")
        assert load().logins() == ["me:long-and-random", "you:longer-and-random"]


def test_beyond_this_machine_flower_does_not_start_with_a_password_that_can_be_found_by_trying() -> None:
    """It names whose it is, and not the password. Here alone it does."""
    logins = "me:eleven-char,you:twelve-chars"
    for address in ("0.0.0.0", "::", "10.0.0.7", "flower.internal"):
        with pytest.raises(
            BadSettings, match="FLOWER_BASIC_AUTH: the password of me has fewer than 12 char"
        ) as refused:
            load(address=address, basic_auth=logins)
        assert "eleven" not in str(refused.value)
    assert load(address="127.0.0.1", basic_auth=logins).weak()
    assert not load(address="0.0.0.0", basic_auth="you:twelve-chars").weak()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, set()),
        ({"hosts": "voices.example,Ops.Example,[2001:db8::1]"}, {"voices.example", "ops.example", "2001:db8::1"}),
        ({"address": "::1", "basic_auth": "me:long"}, set()),
        ({"address": "0.0.0.0", "basic_auth": "me:long-and-random"}, None),
        ({"address": "0.0.0.0", "basic_auth": "me:long-and-random", "hosts": "voices.example"}, {"voices.example"}),
    ],
)
def test_flower_answers_to_any_name_only_where_it_has_a_login_and_listens_beyond_this_machine(
    settings: dict[str, str], names: set[str] | None
) -> None:
    """A page whose name its owner points at 127.0.0.1 is then one of this machine, for all that a browser knows."""
    assert load(**settings).names() == names


@pytest.mark.parametrize("hosts", ["voices.example:80", "https://voices.example", "a, b", "me@here"])
def test_a_host_of_flower_is_a_name_without_a_port(hosts: str) -> None:
    """Anything else would match no request, and be found out late."""
    with pytest.raises(BadSettings, match="FLOWER_HOSTS: must be host names without ports"):
        load(hosts=hosts)


@pytest.mark.parametrize("login", ["me", "me:", ":secret", "me:long,you"])
def test_a_login_that_is_none_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    """Half of it may be a password."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH", login)

    with pytest.raises(BadSettings) as refused:
        load()

    assert str(refused.value) == "FLOWER_BASIC_AUTH: must be user:password; separate several with commas"


def test_each_queue_has_a_history_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two Flowers on one machine, in one folder: neither shows or overwrites what the other has seen."""
    assert load().history("a") != load().history("b")
    monkeypatch.setenv("FLOWER_DB", "/var/lib/flower/state")
    assert str(load().history("a")) == "/var/lib/flower/state"


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
    """Instead of raw arguments; what is none of ours stays as it is."""
    task = format_task(SimpleNamespace(name=name, args=args, kwargs="{}"))

    assert task.args == shown
