"""docker-compose.yml without Docker: its services and their environments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"

#: The variables that compose requires in .env: those of `make secrets`, and the key of the account.
REQUIRED = {
    "FLOWER_BASIC_AUTH",
    "MUSICAPI_KEY",
    "VALKEY_APP_PASSWORD",
    "VALKEY_FLOWER_PASSWORD",
    "VALKEY_GATEWAY_PASSWORD",
    "VALKEY_WORKER_PASSWORD",
    "VOICEQUEUE_CALLBACK_SECRET",
    "VOICEQUEUE_SECRET",
}

#: `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?error}`.
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}")


class Unset(Exception):
    """Compose does not start without this variable; the text says what to do."""


def services() -> dict[str, Any]:
    """Return the services by name."""
    services_by_name: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return services_by_name


def environment(service: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service when .env has these values. Raises Unset."""
    declared = service.get("environment", {})
    passed_on = {name: values[name] for name, value in declared.items() if value is None and name in values}
    return passed_on | {name: interpolated(str(value), values) for name, value in declared.items() if value is not None}


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """Replace the variables in the text by their values. Raises Unset."""

    def value(variable: re.Match[str]) -> str:
        name, kind, rest = variable.groups()
        if name is None:
            return "$"
        if not values.get(name) and kind == "?":
            raise Unset(f"{name}: {rest}")
        return values.get(name) or (rest if kind == "-" else "")

    return _VARIABLE.sub(value, text)


def read_values(file: Path) -> dict[str, str]:
    """Return the variables of a .env file; the last line of a name counts."""
    lines = (line for line in file.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def source_of(path: str, service: Mapping[str, Any]) -> Path:
    """Return the file of this checkout that is mounted at that path in the service."""
    mounts = [str(volume).split(":") for volume in service["volumes"]]
    [source] = [mount[0] for mount in mounts if mount[1] == path and mount[0].startswith("./")]
    return ROOT / source
