"""Flower's settings, from the environment and `.env`, and its presentation of our tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from config.setting_groups import EnvironmentSettings
from config.settings import SettingsError, describe_errors
from voicequeue.auth.secret_files import SecretFileError, describe_unreadable_dotenv
from voicequeue.auth.web_origins import host_name, is_loopback_name

#: The folder of the task histories, with one folder per queue.
HISTORIES = Path(".voicequeue/flower")

#: The minimum length of a password: Flower does not limit attempts to guess one.
PASSWORD_MIN = 12

_ID = re.compile(r"'([^'\s]+)'")


def _check_logins(logins: SecretStr) -> SecretStr:
    for login in filter(None, logins.get_secret_value().split(",")):
        user, _, password = login.partition(":")
        if not user or not password:
            raise ValueError("must be user:password; separate several with commas")
    return logins


def _check_hosts(hosts: str) -> str:
    for name in filter(None, hosts.split(",")):
        if name.lower().strip("[]") != host_name(name):
            raise ValueError("must be host names without ports; separate several with commas")
    return hosts


class FlowerSettings(EnvironmentSettings):
    """Flower's address, logins and history."""

    model_config = SettingsConfigDict(env_prefix="FLOWER_")

    address: str = Field(
        "127.0.0.1", description="Address that Flower listens on. Beyond this machine a login is required."
    )
    port: int = Field(5555, ge=0, le=65_535, description="Port that Flower listens on.")
    allowed_hosts: Annotated[str, AfterValidator(_check_hosts)] = Field(
        "",
        description="Host names that Flower answers to, besides local ones, separated by commas: those of your reverse "
        "proxy. Unset: local names only where it listens on this machine, any name elsewhere.",
    )
    basic_auth: Annotated[SecretStr, AfterValidator(_check_logins)] = Field(
        SecretStr(""),
        description="Logins of [Flower](../guides/flower.md): `user:password`, separated by commas. Without one, or "
        f"with a password of fewer than {PASSWORD_MIN} characters, Flower starts on this machine only.",
    )
    url_prefix: str = Field(
        "",
        pattern=r"^[\w./-]*$",
        description="Path prefix behind a reverse proxy, such as `flower`.",
    )
    page_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#]+[^\s?#]*)?$",
        description="URL of the [job page](job-page.md), to which tasks then link. Unset: no links.",
    )
    read_only: bool = Field(
        True,
        description="Show workers without controlling them. `false`, set for the workers as well, lets every "
        "login stop workers.",
    )
    db: Path | None = Field(
        None,
        description="File of the task history. Unset: `.voicequeue/flower/PREFIX/state`, one per queue.",
    )
    max_tasks: int = Field(20_000, ge=1, le=1_000_000, description="Most tasks kept in the history.")
    state_save_interval: int = Field(
        30_000, ge=0, description="Milliseconds between two saves of the history. 0: save at exit only."
    )

    def history_file(self, prefix: str) -> Path:
        """Return the history file of the queue with this prefix."""
        return self.db or HISTORIES / prefix / "state"

    def accepted_hosts(self) -> frozenset[str] | None:
        """Return the host names that Flower answers to besides local ones; None for any name."""
        if not self.allowed_hosts and not is_loopback_address(self.address):
            return None  # it requires a login, which browsers send to no other name
        return frozenset(filter(None, map(host_name, self.allowed_hosts.split(","))))

    def weak_passwords(self) -> str:
        """Return an error that names the users whose passwords are too short; '' if there are none."""
        logins = [login.partition(":") for login in self.logins()]
        users = ", ".join(user for user, _, password in logins if len(password) < PASSWORD_MIN)
        return f"the password of {users} has fewer than {PASSWORD_MIN} characters" if users else ""

    def logins(self) -> list[str]:
        """Return the logins as `user:password`; empty if none is required."""
        return list(filter(None, self.basic_auth.get_secret_value().split(",")))


def lacks_required_login(address: str, basic_auth: str) -> bool:
    """Return whether Flower would listen beyond this machine without a login."""
    return not basic_auth and not is_loopback_address(address)


def is_loopback_address(address: str) -> bool:
    """Return whether only this machine can reach a server at this address."""
    return is_loopback_name(address)  # '' means every address, and a name may resolve to any


def is_read_only() -> bool:
    """Return whether Flower is read-only, so that it cannot stop workers; also true if its settings are invalid."""
    try:
        return FlowerSettings().read_only
    except (ValidationError, SecretFileError):
        return True


def load(**overrides: str) -> FlowerSettings:
    """Read the settings from the environment now; `overrides` take precedence. Raises SettingsError, which ends the
    process."""
    try:
        loaded = FlowerSettings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(describe_errors(error, prefix="FLOWER_")) from None
    except SecretFileError as error:
        raise SettingsError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(describe_unreadable_dotenv(error)) from None
    if lacks_required_login(loaded.address, loaded.basic_auth.get_secret_value()):
        raise SettingsError(
            f"FLOWER_BASIC_AUTH: is required if Flower listens beyond this machine (FLOWER_ADDRESS is "
            f"{loaded.address!r}); set it to user:password"
        )
    if not is_loopback_address(loaded.address) and (weak := loaded.weak_passwords()):
        raise SettingsError(
            f"FLOWER_BASIC_AUTH: {weak}, too few if Flower listens beyond this machine (FLOWER_ADDRESS is "
            f"{loaded.address!r}); generate one with: openssl rand -hex 32"
        )
    return loaded


def format_task(task: Any) -> Any:
    """Show the stage and the job ids of a task instead of its raw arguments; Flower calls it for each task."""
    stage = (task.name or "").partition(".")[0]
    ids = _ID.findall(task.args or "")
    if task.name == "voicequeue.enqueue":
        task.args, task.kwargs = "a job from a message", ""
    elif ids:
        subject = {"callback": "callback", "song": "job"}.get(stage, f"{stage}, job")
        task.args, task.kwargs = f"{subject}{'s' if len(ids) > 1 else ''} {' '.join(ids)}", ""
    return task
