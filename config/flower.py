"""Flower's settings, from the environment and `.env`, and how it shows our tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.settings import BadSettings, explain
from voicequeue.auth.web_origins import host_name, is_loopback_name

#: Where the histories of all queues are kept, each in a folder of its own.
HISTORIES = Path(".voicequeue/flower")

#: A shorter password can be found by trying, and nothing slows that down.
PASSWORD_MIN = 12

_ID = re.compile(r"'([^'\s]+)'")


def _logins(given: SecretStr) -> SecretStr:
    for login in filter(None, given.get_secret_value().split(",")):
        user, _, password = login.partition(":")
        if not user or not password:
            raise ValueError("must be user:password, several separated by commas")
    return given


def _hosts(given: str) -> str:
    for name in filter(None, given.split(",")):
        if name.lower().strip("[]") != host_name(name):
            raise ValueError("must be host names without ports, several separated by commas")
    return given


class FlowerSettings(BaseSettings):
    """Where Flower listens, who may look, and what it remembers."""

    model_config = SettingsConfigDict(
        env_prefix="FLOWER_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    address: str = Field(
        "127.0.0.1", description="Address that Flower listens on. Beyond this machine a login is required."
    )
    port: int = Field(5555, ge=0, le=65_535, description="Port that Flower listens on.")
    hosts: Annotated[str, AfterValidator(_hosts)] = Field(
        "",
        description="Host names that Flower answers to, besides local ones, separated by commas: those of your reverse "
        "proxy. Unset: local names only where it listens on this machine, any name elsewhere.",
    )
    basic_auth: Annotated[SecretStr, AfterValidator(_logins)] = Field(
        SecretStr(""),
        description="Logins of [Flower](flower.md): `user:password`, separated by commas. Without one, or with a "
        f"password of fewer than {PASSWORD_MIN} characters, Flower starts on this machine only.",
    )
    url_prefix: str = Field(
        "",
        pattern=r"^[\w./-]*$",
        description="Path prefix behind a reverse proxy, such as `flower`.",
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

    def history(self, prefix: str) -> Path:
        """Return the file for the history of the queue with this prefix."""
        return self.db or HISTORIES / prefix / "state"

    def names(self) -> frozenset[str] | None:
        """Return the names that it answers to besides local ones; None: any name."""
        if not self.hosts and not is_local(self.address):
            return None  # it has a login, which browsers send to no other name
        return frozenset(filter(None, map(host_name, self.hosts.split(","))))

    def weak(self) -> str:
        """Say whose passwords are too short; '' where none is."""
        logins = [login.partition(":") for login in self.logins()]
        users = ", ".join(user for user, _, password in logins if len(password) < PASSWORD_MIN)
        return f"the password of {users} has fewer than {PASSWORD_MIN} characters" if users else ""

    def logins(self) -> list[str]:
        """Who may look; nobody in particular where it is empty."""
        return list(filter(None, self.basic_auth.get_secret_value().split(",")))


def open_to_all(address: str, basic_auth: str) -> bool:
    """Whether Flower would listen beyond this machine without a login."""
    return not basic_auth and not is_local(address)


def is_local(address: str) -> bool:
    """Return whether only this machine can reach what listens there."""
    return is_loopback_name(address)  # '' is every address, and a name may be that of any


def shows_only() -> bool:
    """Return whether Flower only shows, so that it can stop no worker; also where its settings are invalid."""
    try:
        return FlowerSettings().read_only
    except ValidationError:
        return True


def load(**given: str) -> FlowerSettings:
    """The settings as they stand in the environment now, but for what is `given`. Raises BadSettings, which ends the
    process."""
    try:
        found = FlowerSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise BadSettings(explain(error, prefix="FLOWER_")) from None
    if open_to_all(found.address, found.basic_auth.get_secret_value()):
        raise BadSettings(
            f"FLOWER_BASIC_AUTH: is required where Flower listens beyond this machine (FLOWER_ADDRESS is "
            f"{found.address!r}); user:password"
        )
    if not is_local(found.address) and (weak := found.weak()):
        raise BadSettings(
            f"FLOWER_BASIC_AUTH: {weak}, too few where Flower listens beyond this machine (FLOWER_ADDRESS is "
            f"{found.address!r}); make a longer one with: openssl rand -hex 32"
        )
    return found


def format_task(task: Any) -> Any:
    """The task as a person reads it: its stage and the ids of its jobs instead of raw arguments."""
    stage = (task.name or "").partition(".")[0]
    ids = _ID.findall(task.args or "")
    if task.name == "voicequeue.enqueue":
        task.args, task.kwargs = "a job from a message", ""
    elif ids:
        what = {"callback": "callback", "song": "job"}.get(stage, f"{stage}, job")
        task.args, task.kwargs = f"{what}{'s' if len(ids) > 1 else ''} {' '.join(ids)}", ""
    return task
