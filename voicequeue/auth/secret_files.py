"""Secrets that are given as files: `MUSICAPI_KEY_FILE=/run/secrets/musicapi_key` instead of `MUSICAPI_KEY`.

Docker, Kubernetes and systemd mount secrets as files, so that environments do not show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from voicequeue.errors import VoiceQueueError

#: What a setting's name ends with if its value is the path of a file.
SUFFIX = "_FILE"

#: A file with more characters is not a secret.
CHARACTERS_MAX = 65_536


class SecretFileError(VoiceQueueError):
    """A secret that a setting names as a file cannot be used; the text names the setting and the file."""

    code = "setup"


def read_secret(environment: Mapping[str, str], name: str) -> str:
    """Return the value of the secret `name`, or the content of the file that `name` + `_FILE` is the path of.

    Return '' if neither is set; an empty value counts as not set. Raises SecretFileError if both are set, or if the
    file cannot be read, is empty, has more than one line, or white space around the secret.
    """
    value, path = environment.get(name, ""), environment.get(name + SUFFIX, "")
    if not path:
        return value
    if value:
        raise SecretFileError(f"{name} and {name}{SUFFIX} are both set; remove one of them")
    return _content(name + SUFFIX, Path(path))


def describe_unreadable(error: OSError | ValueError) -> str:
    """Return why a file could not be read as text: the rest of a sentence that begins with its path."""
    if isinstance(error, UnicodeDecodeError):
        return "is not a text file in UTF-8"
    return f"cannot be read: {getattr(error, 'strerror', None) or 'is not a valid path'}"


def describe_unreadable_dotenv(error: OSError | ValueError) -> str:
    """Return why `.env` of the current folder could not be read, and what to do."""
    return f"{Path.cwd() / '.env'} {describe_unreadable(error)}. Let this user read it, or remove it from this folder"


def _content(setting: str, path: Path) -> str:
    """Return the secret in a file, without the line break at its end and an editor's mark of UTF-8 at its start. Raises
    SecretFileError."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(CHARACTERS_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: the path contains a null character
        raise SecretFileError(f"{setting}: {path} {describe_unreadable(error)}") from None
    secret = text.rstrip("\r\n")
    if not secret.strip():
        raise SecretFileError(f"{setting}: {path} is empty; write the secret into it, or remove the setting")
    if len(text) > CHARACTERS_MAX or len(secret.splitlines()) > 1:
        raise SecretFileError(f"{setting}: {path} must contain the secret alone, on one line")
    if secret != secret.strip():
        raise SecretFileError(f"{setting}: {path} has white space before or after the secret; remove it")
    return secret
