"""The settings: validation, error texts and documentation."""

from __future__ import annotations

import re
import secrets
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from config.celeryconfig import BROKER_TRANSPORT_OPTIONS, configuration
from config.settings import Settings, SettingsError, describe_errors, load
from tasks.poll_scheduler import COUNTDOWN_MAX_S
from voicequeue.auth import signatures
from voicequeue.domain.gate import SUBMIT_RATE_MIN
from workers.dependencies import build_webhooks, callback_secrets
from workers.doctor import known_settings
from workers.messaging.consumer import ETA_MAX_S

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every setting from the environment, and change to a folder without `.env`."""
    for name in environment_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def environment_names() -> list[str]:
    """Return the environment names of all settings."""
    return [
        str(field.validation_alias) if field.validation_alias else f"VOICEQUEUE_{name.upper()}"
        for name, field in Settings.model_fields.items()
    ]


#: Values of VOICEQUEUE_SECRET that cannot be guessed.
STRONG_SECRETS = ("0123456789abcdef" * 4, "fedcba9876543210" * 4, "0f1e2d3c4b5a6978" * 4)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("VOICEQUEUE_MAX_IN_FLIGHT", "0", "greater than or equal to 1"),
        ("VOICEQUEUE_MAX_IN_FLIGHT", "many", "valid integer"),
        ("VOICEQUEUE_POLL_MAX_INTERVAL_S", "61", "less than or equal to 60"),
        ("VOICEQUEUE_PREFIX", "{x}", "pattern"),
        ("MUSICAPI_BASE_URL", "api.musicapi.ai", "pattern"),
        ("VOICEQUEUE_CALLBACK_SECRET", "whsec_c2hvcnQ=", "24 to 64 bytes"),
        ("VOICEQUEUE_CALLBACK_SECRET", f"whsec_{'YWFh' * 8} YWFhYWFh", "24 to 64 bytes"),
        ("VOICEQUEUE_CALLBACK_ALLOWED_HOSTS", "https://inner.example", "host names"),
        ("VOICEQUEUE_CALLBACK_ALLOWED_HOSTS", "10.0.0.0/33", "host names"),
        ("VOICEQUEUE_CALLBACK_ALLOWED_HOSTS", "*.inner.example", "host names"),
        ("VOICEQUEUE_ARCHIVE_URL", "../songs", "must be a folder, or an fsspec URL"),
        ("VOICEQUEUE_ARCHIVE_URL", "simplecache::s3://bucket", "must be a folder, or an fsspec URL"),
        ("VOICEQUEUE_ARCHIVE_URL", "/archive\n", "must not contain spaces or line breaks, not even at its end"),
        ("VOICEQUEUE_AUDIO_ALLOWED_HOSTS", "http://cdn", "must be host names"),
        ("VOICEQUEUE_SECRET", "0123456789abcdef0123456789abcde", "at least 32 characters"),
        ("VOICEQUEUE_SECRET", "secret" * 20, "8 of them different"),
        ("VOICEQUEUE_SECRET", "x" * 1000, "openssl rand -hex 32"),
        ("VOICEQUEUE_SECRET", f"{STRONG_SECRETS[0]},short", "value 2 of 2 can be guessed"),
        ("VOICEQUEUE_SECRET", f"short,{STRONG_SECRETS[0]}", "value 1 of 2 can be guessed"),
        ("VOICEQUEUE_SECRET", f"short {STRONG_SECRETS[0]}", "separate the new one and the old one by a comma"),
        ("VOICEQUEUE_SECRET", ",".join(STRONG_SECRETS), "has 3 values"),
        ("VOICEQUEUE_SECRET", f"{STRONG_SECRETS[0]},{STRONG_SECRETS[0]}", "the same value twice"),
    ],
)
def test_a_bad_setting_names_itself_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    """The error names the environment variable and does not quote its value."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError) as error:
        Settings()

    text = describe_errors(error.value)
    assert text.startswith(f"{name}: ")
    assert expected in text
    assert value not in text or len(value) < 5
    assert not any(secret in text for secret in STRONG_SECRETS)


def test_callbacks_accept_several_secrets_and_allowed_hosts_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are separated by spaces, in the format that receivers get; hosts are names, addresses and networks."""
    secrets_text = f"whsec_{'YWFh' * 8} {signatures.callback_secret('x')}"
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", secrets_text)
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_ALLOWED_HOSTS", "inner.example, 10.0.0.0/8 [::1],127.0.0.1")

    assert callback_secrets(Settings()) == secrets_text.split()
    assert secrets_text not in repr(Settings())


def test_without_a_callback_secret_one_is_derived_from_the_common_secret() -> None:
    """The derived secret is stable and differs from the common one; without any secret there is none."""
    common = "the common secret of all these processes"
    [derived] = callback_secrets(Settings(secret=SecretStr(common)))

    assert derived == signatures.callback_secret(common) != signatures.callback_secret("another")
    assert callback_secrets(Settings(callback_secret=SecretStr(derived))) == [derived]
    assert callback_secrets(Settings()) == []


def test_while_the_common_secret_is_rotated_callbacks_are_signed_with_both() -> None:
    """So each receiver can change to its new secret when it wants; everything else is signed with the new one."""
    new, old, _ = STRONG_SECRETS
    settings = Settings(secret=SecretStr(f"{new}, {old}"), public_url="https://voices.example")
    webhooks = build_webhooks(settings)

    assert callback_secrets(settings) == [signatures.callback_secret(new), signatures.callback_secret(old)]
    assert webhooks is not None
    assert webhooks.secret == settings.signing_secret == new


def test_a_secret_generated_by_openssl_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the length that the hint suggests is accepted too."""
    for size in (16, 32):
        monkeypatch.setenv("VOICEQUEUE_SECRET", secrets.token_hex(size))
        assert load().secret.get_secret_value()


def test_polls_that_are_never_due_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minimum interval must not exceed the maximum."""
    monkeypatch.setenv("VOICEQUEUE_POLL_MIN_INTERVAL_S", "30")

    with pytest.raises(
        SettingsError, match="VOICEQUEUE_POLL_MIN_INTERVAL_S: 30 is more than VOICEQUEUE_POLL_MAX_INTERVAL_S, 25"
    ):
        load()


def test_webhooks_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret anyone could forge webhooks."""
    monkeypatch.setenv("VOICEQUEUE_PUBLIC_URL", "https://voices.example")

    with pytest.raises(SettingsError, match="VOICEQUEUE_SECRET: is required with VOICEQUEUE_PUBLIC_URL"):
        load()


def test_times_may_be_fractions_of_a_second_and_a_file_is_read(tmp_path: Path) -> None:
    """`.env` in the working folder is read."""
    (tmp_path / ".env").write_text("VOICEQUEUE_DISPATCH_INTERVAL_S=0.05\nMUSICAPI_KEY=secret-key\n")

    loaded = load()

    assert loaded.dispatch_interval_s == 0.05
    assert loaded.musicapi_key.get_secret_value() == "secret-key"
    assert "secret-key" not in repr(loaded)


def test_every_setting_is_documented() -> None:
    """Users find every setting without reading the code."""
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert [name for name in environment_names() if f"`{name}`" not in text] == []


def test_no_countdown_exceeds_the_visibility_timeout() -> None:
    """A message that a worker holds longer than that would run twice; the documentation names the same limit."""
    visibility_timeout = BROKER_TRANSPORT_OPTIONS["visibility_timeout"]
    longest_interval = max(
        meta.le for meta in Settings.model_fields["poll_max_interval_s"].metadata if hasattr(meta, "le")
    )

    assert longest_interval <= COUNTDOWN_MAX_S <= visibility_timeout - 60
    assert visibility_timeout == ETA_MAX_S
    assert f" at most {visibility_timeout} s;" in (ROOT / "docs" / "guides" / "messages.md").read_text(encoding="utf-8")
    assert "worker_eta_task_limit" not in configuration(Settings())


def test_the_doctor_knows_every_setting_that_the_documents_name() -> None:
    """An unknown one would be reported as a typing error, and one that is missing in the documents is undocumented."""
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(VOICEQUEUE_[A-Z_]+)`", page))

    assert named == {name for name in known_settings() if name.startswith("VOICEQUEUE_")}


def test_the_minimum_submit_rate_is_the_same_everywhere() -> None:
    """The settings, the domain and the Lua scripts agree."""
    flow = (files("voicequeue.storage.scripts") / "lib" / "flow_control.lua").read_text(encoding="utf-8")

    assert f"local RATE_MIN = {SUBMIT_RATE_MIN:g}\n" in flow
    assert Settings(_env_file=None, submit_rate=SUBMIT_RATE_MIN).submit_rate == SUBMIT_RATE_MIN
    with pytest.raises(ValidationError):
        Settings(_env_file=None, submit_rate=SUBMIT_RATE_MIN / 2)
