"""docker-compose.yml without Docker: its services, their environments and their secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"

#: The folder of a service's secrets, in its container.
MOUNTED = "/run/secrets"

#: `$$`, `${NAME}` and `${NAME:-default}`.
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}")


def document() -> dict[str, Any]:
    """Return the whole file."""
    content: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return content


def services(profile: str | None = None) -> dict[str, Any]:
    """Return the services by name: all of them, or those of a profile."""
    all_services: dict[str, Any] = document()["services"]
    return {name: service for name, service in all_services.items() if profile in (None, *service["profiles"])}


def environment(service: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service when .env has these values: all of them, if the service reads that file."""
    passed_on = values if any(entry["path"] == ".env" for entry in service.get("env_file", [])) else {}
    declared = service.get("environment", {})
    return {**passed_on, **{name: interpolated(str(value), values) for name, value in declared.items()}}


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """Replace the variables in the text by their values."""

    def value(variable: re.Match[str]) -> str:
        name, default = variable.groups()
        return "$" if name is None else values.get(name) or default or ""

    return _VARIABLE.sub(value, text)


def read_values(file: Path) -> dict[str, str]:
    """Return the variables of a .env file; the last line of a name counts."""
    lines = (line for line in file.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def secret_files(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of a service's secrets, relative to the checkout, by their names in the container."""
    declared = document()["secrets"]
    return {name: declared[name]["file"] for name in service.get("secrets", [])}


def source_of(path: str, service: Mapping[str, Any]) -> Path:
    """Return the file of this checkout that is mounted at that path in the service."""
    mounts = [str(volume).split(":") for volume in service["volumes"]]
    [source] = [mount[0] for mount in mounts if mount[1] == path and mount[0].startswith("./")]
    return ROOT / source
