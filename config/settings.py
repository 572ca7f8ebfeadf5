"""The settings of a process, read from the environment and `.env`. Errors name the setting and what is allowed."""

from __future__ import annotations

from functools import cache

from pydantic import SecretStr, ValidationError

from config.secret_source import environment_name
from config.setting_groups import (
    ArchiveSettings,
    CallbackSettings,
    ConnectionSettings,
    GatewaySettings,
    JobSettings,
    LogSettings,
    PaceSettings,
    PollingSettings,
)
from voicequeue.auth.secret_files import SecretFileError, describe_unreadable_dotenv
from voicequeue.storage.connection.redis_url import masked


class SettingsError(SystemExit):
    """A setting has a value that is not allowed; the text names it."""


#: Seconds that a stopping worker has to store its last response and exit.
STOP_MARGIN_S = 10.0


class Settings(
    LogSettings,
    ArchiveSettings,
    CallbackSettings,
    PollingSettings,
    JobSettings,
    PaceSettings,
    GatewaySettings,
    ConnectionSettings,
):
    """All settings of config/setting_groups.py. Durations are in seconds and may be fractions."""

    title = "Settings"

    @property
    def stop_timeout_s(self) -> float:
        """The seconds that a worker may take to stop: one POST that just started, storing its response, a margin."""
        return self.upstream_connect_timeout_s + self.upstream_response_timeout_s + STOP_MARGIN_S


@cache
def settings() -> Settings:
    """Return the process's settings, read once. Raises SettingsError."""
    return load()


def load() -> Settings:
    """Read the settings from the environment now. Raises SettingsError, which ends the process."""
    try:
        loaded = Settings()
    except ValidationError as error:
        raise SettingsError(describe_errors(error)) from None
    except SecretFileError as error:
        raise SettingsError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(describe_unreadable_dotenv(error)) from None
    if loaded.public_url and not loaded.secrets:
        raise SettingsError(
            "VOICEQUEUE_SECRET: is required with VOICEQUEUE_PUBLIC_URL; generate one with: openssl rand -hex 32"
        )
    if loaded.poll_min_interval_s > loaded.poll_max_interval_s:
        raise SettingsError(
            f"VOICEQUEUE_POLL_MIN_INTERVAL_S: {loaded.poll_min_interval_s:g} is more than "
            f"VOICEQUEUE_POLL_MAX_INTERVAL_S, {loaded.poll_max_interval_s:g}"
        )
    return loaded


def setting_names(*, include_secret: bool = True) -> frozenset[str]:
    """Return the environment names of all settings; with `include_secret=False`, only of those that hold no secret."""
    return frozenset(
        environment_name(Settings, name, field)
        for name, field in Settings.model_fields.items()
        if include_secret or field.annotation is not SecretStr
    )


def is_secret_value(name: str, value: str) -> bool:
    """Return whether this value must not be shown: it is a secret, or a URL with a login."""
    return name not in setting_names(include_secret=False) or masked(value) != value


def describe_errors(error: ValidationError, *, prefix: str = "VOICEQUEUE_") -> str:
    """Return one line per invalid setting, with its environment name and without its value."""
    return "\n".join(
        f"{_environment_name(str(detail['loc'][0]), prefix)}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in error.errors(include_url=False, include_input=False)
    )


def _environment_name(field: str, prefix: str) -> str:
    return field.upper() if field.upper() == field else prefix + field.upper()
