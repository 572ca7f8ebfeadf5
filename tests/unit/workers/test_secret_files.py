"""Secrets from files: `X_FILE` for each secret setting `X`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from config import flower
from config.flower import FlowerSettings
from config.secret_source import environment_name, file_settings, secret_fields
from config.settings import Settings, SettingsError, load
from voicequeue.auth.secret_files import CHARACTERS_MAX, SecretFileError, read_secret
from workers.doctor import known_settings

#: A valid value of each secret setting.
VALUES = {
    "REDIS_URL": "rediss://user:pass%40word@redis.example:6380/3",
    "MUSICAPI_KEY": "key of the account",
    "VOICEQUEUE_SECRET": "0123456789abcdef" * 4,
    "VOICEQUEUE_API_KEYS": f"app:read:{'0' * 64}",
    "VOICEQUEUE_CALLBACK_SECRET": f"whsec_{'YWFh' * 8}",
    "VOICEQUEUE_ARCHIVE_URL": "s3://key:secret@bucket/songs",
    "FLOWER_BASIC_AUTH": "operator:a-long-password",
}
FIELDS = [
    (kind, name, environment_name(kind, name, field))
    for kind in (Settings, FlowerSettings)
    for name, field in secret_fields(kind)
]
NAMES = [name for _, _, name in FIELDS]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove every secret from the environment, and change to a folder without `.env`."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.chdir(tmp_path)


def loaded(kind: type[Settings | FlowerSettings], field: str) -> str:
    """Return the value of a field as a process reads it."""
    value = getattr(load() if kind is Settings else flower.load(), field)
    return value if isinstance(value, str) else str(value.get_secret_value())


@pytest.mark.parametrize("place", ["environment", ".env"])
@pytest.mark.parametrize(("kind", "field", "name"), FIELDS, ids=NAMES)
def test_each_secret_setting_may_be_given_as_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Settings], field: str, name: str, place: str
) -> None:
    """In the environment and in `.env`. A line break at the end of the file does not belong to the secret."""
    file = tmp_path / "secret"
    file.write_text(f"{VALUES[name]}\n")
    if place == ".env":
        Path(".env").write_text(f"{name}_FILE={file}\n")
    else:
        monkeypatch.setenv(f"{name}_FILE", str(file))

    assert loaded(kind, field) == VALUES[name]
    assert read_secret({f"{name}_FILE": str(file)}, name) == VALUES[name]


def test_a_secret_that_an_editor_of_windows_saved_is_read(tmp_path: Path) -> None:
    """The mark of UTF-8 at the start of the file does not belong to the secret."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbfkey-0123\r\n")

    assert read_secret({"MUSICAPI_KEY_FILE": str(file)}, "MUSICAPI_KEY") == "key-0123"


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_that_is_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """As a value and as a file, also if one of them is in `.env`: neither is preferred silently."""
    (tmp_path / "secret").write_text(VALUES[name])
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    Path(".env").write_text(f"{name}={VALUES[name]}\n")

    with pytest.raises(SettingsError, match=f"^{name} and {name}_FILE are both set; remove one of them$"):
        (flower.load if name.startswith("FLOWER") else load)()


def test_an_empty_value_in_the_environment_cancels_the_file_of_dotenv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that gets the value of a secret from its parent can ignore the file."""
    Path(".env").write_text(f"MUSICAPI_KEY_FILE={tmp_path / 'missing'}\n")
    monkeypatch.setenv("MUSICAPI_KEY_FILE", "")
    monkeypatch.setenv("MUSICAPI_KEY", "value")

    assert load().musicapi_key.get_secret_value() == "value"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty; write the secret into it, or remove the setting"),
        (b" \n", "is empty"),
        (b"first-0123456789\nsecond-0123456789\n", "must contain the secret alone, on one line"),
        (b"first-0123456789 \n", "has white space before or after the secret; remove it"),
        (b"x" * (CHARACTERS_MAX + 1), "must contain the secret alone"),
        (b"\xff\xfe secret", "is not a text file in UTF-8"),
    ],
)
def test_the_error_for_an_unusable_file_names_the_setting_and_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """And never quotes what is in the file."""
    file = tmp_path / "voicequeue_secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("VOICEQUEUE_SECRET_FILE", str(file))

    with pytest.raises(SettingsError) as error:
        load()

    assert str(error.value).startswith(f"VOICEQUEUE_SECRET_FILE: {file} ")
    assert reason in str(error.value)
    assert "0123456789" not in str(error.value)


@pytest.mark.parametrize("read", [load, flower.load])
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (None, "is not a text file in UTF-8"),
    ],
)
def test_a_dotenv_that_cannot_be_read_ends_the_process_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: Callable[[], object], failure: OSError | None, reason: str
) -> None:
    """`make secrets` makes one for its user only, and processes run as another."""
    Path(".env").write_bytes(b"VOICEQUEUE_PREFIX=\xff")
    if failure is not None:
        monkeypatch.setattr("dotenv.main.open", Mock(side_effect=failure), raising=False)  # root may read every file

    with pytest.raises(SettingsError, match=f"^{re.escape(str(tmp_path))}/.env {reason}. Let this user"):
        read()


def test_a_folder_is_not_a_secret(tmp_path: Path) -> None:
    """Docker creates a folder where a file to mount is missing."""
    with pytest.raises(SecretFileError, match=r"^REDIS_URL_FILE: .* cannot be read: Is a directory$"):
        read_secret({"REDIS_URL_FILE": str(tmp_path)}, "REDIS_URL")


def test_a_secret_from_a_file_is_validated_like_any_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error does not quote it."""
    (tmp_path / "secret").write_text("guessable")
    monkeypatch.setenv("VOICEQUEUE_SECRET_FILE", str(tmp_path / "secret"))

    with pytest.raises(SettingsError, match=r"^VOICEQUEUE_SECRET: ") as error:
        load()

    assert "guessable" not in str(error.value)


def test_flower_controls_no_workers_if_its_file_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers read this setting; only Flower needs the file."""
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", "/missing")

    assert flower.is_read_only()


def test_the_doctor_knows_the_settings_that_name_files() -> None:
    """They are not reported as misspelled."""
    assert file_settings(Settings) | file_settings(FlowerSettings) == {f"{name}_FILE" for name in VALUES}
    assert {f"{name}_FILE" for name in VALUES} <= known_settings()
