"""API keys: creation, configuration and verification."""

from __future__ import annotations

import pytest

from config.settings import Settings, SettingsError
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from workers.gateway import app

HASH = "0" * 64


def test_a_new_key_is_verified_by_its_configured_line() -> None:
    """And by nothing else; the line does not contain the key."""
    key, configured = api_keys.generate_key("shop", [Scope.READ, Scope.ENQUEUE])

    [parsed] = api_keys.parse_keys(configured.as_setting())

    assert parsed == configured
    assert configured.as_setting().startswith("shop:enqueue+read:")
    assert api_keys.find_key([parsed], key) == configured
    assert api_keys.find_key([parsed], key + "x") is None
    assert api_keys.find_key([parsed], configured.digest) is None
    assert key.removeprefix("vq_") not in configured.as_setting()


def test_keys_are_unique() -> None:
    """They are random and long."""
    keys = {api_keys.generate_key("shop", Scope)[0] for _ in range(100)}

    assert len(keys) == 100
    assert {len(key) for key in keys} == {46}


def test_several_keys_are_separated_by_commas() -> None:
    """Spaces are ignored, and a trailing comma is allowed."""
    keys = api_keys.parse_keys(f" a:read:{HASH}, b:enqueue+operate:{HASH},\n")

    assert [(key.name, sorted(key.scopes)) for key in keys] == [("a", ["read"]), ("b", ["enqueue", "operate"])]
    assert api_keys.parse_keys("") == ()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("shop", "scopes of 'shop'"),
        (f"shop:{HASH}", "scopes of 'shop'"),
        (f"shop:all:{HASH}", "enqueue, read, operate"),
        (f"shop::{HASH}", "scopes of 'shop'"),
        ("shop:read:abc", "hash of 'shop'"),
        (f"shop:read:{HASH.replace('0', 'A')}", "hash of 'shop'"),
        (f"a b:read:{HASH}", "name"),
        (f":read:{HASH}", "name"),
        (f"a:read:{HASH},a:read:{HASH}", "'a' occurs twice"),
        (f"a:read:{HASH},vq_{'secret' * 7}", "voicequeue keys new"),
    ],
)
def test_an_invalid_setting_gives_a_reason_without_a_hash(setting: str, reason: str) -> None:
    """The process exits and names the setting. The error does not show a key either that was configured by mistake."""
    with pytest.raises(SettingsError, match="VOICEQUEUE_API_KEYS: ") as error:
        app.configured_keys(Settings(_env_file=None, api_keys=setting))

    assert reason in str(error.value)
    assert HASH not in str(error.value)
    assert "secret" not in str(error.value)
