"""Flower's settings, from the environment and `.env`, and how it shows our tasks."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.settings import BadSettings, explain

_ID = re.compile(r"'([^'\s]+)'")


def _logins(given: SecretStr) -> SecretStr:
    for login in filter(None, given.get_secret_value().split(",")):
        user, _, password = login.partition(":")
        if not user or not password:
            raise ValueError("must be user:password, several separated by commas")
    return given


class FlowerSettings(BaseSettings):
    """Where Flower listens, who may look, and what it remembers."""

    model_config = SettingsConfigDict(
        env_prefix="FLOWER_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    address: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 5555
    #: user:password, several separated by commas.
    basic_auth: Annotated[SecretStr, AfterValidator(_logins)] = SecretStr("")
    #: Where a reverse proxy shows it, such as `flower` for https://example.com/flower/.
    url_prefix: Annotated[str, Field(pattern=r"^[\w./-]*$")] = ""
    #: Whether it only shows. What is done to jobs is done with `voicequeue`.
    read_only: bool = True
    #: The file that its history is kept in.
    db: Path = Path(".voicequeue/flower/state")
    #: How many tasks it remembers, and how often (milliseconds) it saves them.
    max_tasks: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    state_save_interval: Annotated[int, Field(ge=0)] = 30_000

    def logins(self) -> list[str]:
        """Who may look; nobody in particular where it is empty."""
        return list(filter(None, self.basic_auth.get_secret_value().split(",")))


def open_to_all(address: str, basic_auth: str) -> bool:
    """Whether Flower would listen beyond this machine without a login."""
    if basic_auth or address == "localhost":
        return False
    try:
        return not ip_address(address).is_loopback
    except ValueError:  # '' is every address, and a name may stand for any
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
