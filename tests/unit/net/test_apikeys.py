"""API keys: how they are made, configured and recognized."""

from __future__ import annotations

import pytest

from config.settings import BadSettings, Settings
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from workers.gateway import app

HASH = "0" * 64


def test_a_new_key_is_recognized_by_what_is_configured_of_it() -> None:
    """And by nothing else; the key itself is not in there."""
    key, configured = api_keys.new("shop", [Scope.READ, Scope.ENQUEUE])

    [parsed] = api_keys.parse(configured.line())

    assert parsed == configured
    assert configured.line().startswith("shop:enqueue+read:")
    assert api_keys.holder([parsed], key) == configured
    assert api_keys.holder([parsed], key + "x") is None
    assert api_keys.holder([parsed], configured.digest) is None
    assert key.removeprefix("vq_") not in configured.line()


def test_no_two_keys_are_the_same() -> None:
    """They are random, and long."""
    keys = {api_keys.new("shop", Scope)[0] for _ in range(100)}

    assert len(keys) == 100
    assert {len(key) for key in keys} == {46}


def test_several_keys_stand_beside_each_other() -> None:
    """Separated by commas; spaces do not count, nor does a comma at the end."""
    found = api_keys.parse(f" a:read:{HASH}, b:enqueue+operate:{HASH},\n")

    assert [(key.name, sorted(key.scopes)) for key in found] == [("a", ["read"]), ("b", ["enqueue", "operate"])]
    assert api_keys.parse("") == ()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("shop", "scopes of 'shop'"),
        (f"shop:{HASH}", "scopes of 'shop'"),
        (f"shop:all:{HASH}", "enqueue, read, operate"),
        (f"shop::{HASH}", "scopes of 'shop'"),
        ("shop:read:abc", "hash of 'shop'"),
        (f"shop:read:{HASH.replace('0', 'A')}", "hash of 'shop'"),
        (f"a b:read:{HASH}", "name"),
        (f":read:{HASH}", "name"),
        (f"a:read:{HASH},a:read:{HASH}", "'a' is there twice"),
        (f"a:read:{HASH},vq_{'secret' * 7}", "voicequeue keys new"),
    ],
)
def test_a_setting_that_cannot_be_says_why_without_a_hash(setting: str, says: str) -> None:
    """The process ends, and names the setting. It shows no key either that was put there itself."""
    with pytest.raises(BadSettings, match="VOICEQUEUE_API_KEYS: ") as error:
        app.keys(Settings(_env_file=None, api_keys=setting))

    assert says in str(error.value)
    assert HASH not in str(error.value)
    assert "secret" not in str(error.value)
