"""Secrets of the settings from files: `MUSICAPI_KEY_FILE` for `MUSICAPI_KEY`, and likewise for each secret setting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from voicequeue.auth.secret_files import SUFFIX, read_secret

#: Secret settings whose type does not say so: a URL may contain a password.
_MAY_CONTAIN_SECRET = frozenset({"REDIS_URL"})


class SecretFileSource(PydanticBaseSettingsSource):
    """Reads the secrets that the environment, or `.env`, names as files."""

    def __init__(self, settings_cls: type[BaseSettings], dotenv: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._dotenv: dict[str, str | None] = dict(getattr(dotenv, "env_vars", {}))

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the content of the field's file, or None. Raises SecretFileError."""
        name = environment_name(self.settings_cls, field_name, field)
        value = os.environ.get(name) or self._in_dotenv(name)
        path = os.environ.get(name + SUFFIX, self._in_dotenv(name + SUFFIX))
        content = read_secret({name: value, name + SUFFIX: path}, name) if path else None
        return content, str(field.validation_alias or field_name), False

    def __call__(self) -> dict[str, Any]:
        """Return the secrets that are given as files. Raises SecretFileError."""
        values = (self.get_field_value(field, name) for name, field in secret_fields(self.settings_cls))
        return {key: content for content, key, _ in values if content is not None}

    def _in_dotenv(self, name: str) -> str:
        """Return a variable of `.env`; pydantic makes the names lowercase."""
        return self._dotenv.get(name.lower()) or ""


def secret_fields(kind: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of a class that may be given as a file, by name."""
    for name, field in kind.model_fields.items():
        if field.annotation is SecretStr or field.validation_alias in _MAY_CONTAIN_SECRET:
            yield name, field


def file_settings(kind: type[BaseSettings]) -> frozenset[str]:
    """Return the environment names that give secrets of this class as files: `MUSICAPI_KEY_FILE`, …"""
    return frozenset(environment_name(kind, name, field) + SUFFIX for name, field in secret_fields(kind))


def environment_name(kind: type[BaseSettings], field_name: str, field: FieldInfo) -> str:
    """Return the environment name of a field."""
    return str(field.validation_alias or f"{kind.model_config.get('env_prefix', '')}{field_name}".upper())
