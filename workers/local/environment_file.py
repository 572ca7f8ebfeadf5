"""The files that give another shell the settings of a stack: `. .voicequeue/env`, in fish `. .voicequeue/env.fish`.

They hold no secret. Secrets are referenced by the file that holds them, or the shell is asked to export them itself.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from config.secret_source import file_settings
from config.settings import Settings, is_secret_value, setting_names
from voicequeue.auth.secret_files import SUFFIX
from workers import private_files

#: The simulator accepts any key.
SIMULATED_KEY = "any"

#: The variables with the addresses of programs: of the gateway, of Flower, and of the simulator's controls.
GATEWAY_URL, FLOWER_URL, SIMULATOR_URL = URL_VARIABLES = (
    "VOICEQUEUE_GATEWAY_URL",
    "VOICEQUEUE_FLOWER_URL",
    "VOICEQUEUE_SIMULATOR_URL",
)

#: The variable with the names of those that the stack set by itself, each with a hash of its value.
OWN_SETTINGS = "VOICEQUEUE_STACK_SETTINGS"

#: The variables that a stack sets for its programs and that another shell needs as well.
SHARED_VARIABLES = (
    "REDIS_URL",
    "MUSICAPI_BASE_URL",
    "MUSICAPI_KEY",
    "VOICEQUEUE_AUDIO_ALLOWED_HOSTS",
    "VOICEQUEUE_PUBLIC_URL",
    "VOICEQUEUE_SECRET",
)


def forget_earlier_stack(environ: MutableMapping[str, str]) -> list[str]:
    """Delete the variables that the file of an earlier stack has set in this shell, and return their names.

    Otherwise a stack that is started there would use the Redis and the simulator of one that has stopped. What was
    changed since is kept.
    """
    hashes = dict(item.split(":", 1) for item in environ.pop(OWN_SETTINGS, "").split() if ":" in item)
    names = [name for name, value in hashes.items() if name in environ and _hash(environ[name]) == value]
    for name in names:
        del environ[name]
    return names


def _hash(value: str) -> str:
    return sha256(value.encode(errors="surrogateescape")).hexdigest()[:16]


class Shell(Protocol):
    """The syntax of a shell."""

    #: The end of the name of its file.
    suffix: str

    def unset(self, names: Iterable[str]) -> str:
        """Return the line that unsets variables."""

    def export(self, name: str, value: str) -> str:
        """Return the line that sets a variable."""

    def export_content(self, name: str, file: Path, otherwise: str = "") -> str:
        """Return the line that sets a variable to the content of a file, or to another word if it cannot be read."""

    def require(self, name: str, hint: str) -> str:
        """Return the line that prints a hint unless a variable is set."""


class Posix:
    """Bash, zsh, dash and other shells that follow POSIX."""

    suffix = ""

    def unset(self, names: Iterable[str]) -> str:
        return f"unset {' '.join(names)}"

    def export(self, name: str, value: str) -> str:
        return f"export {name}={shlex.quote(value)}"

    def export_content(self, name: str, file: Path, otherwise: str = "") -> str:
        return f'export {name}="$(cat {shlex.quote(str(file))}{f" || echo {otherwise}" if otherwise else ""})"'

    def require(self, name: str, hint: str) -> str:
        return f'[ -n "${{{name}:-}}" ] || echo "{hint}" >&2'


class Fish:
    """Fish, which has a syntax of its own."""

    suffix = ".fish"

    def unset(self, names: Iterable[str]) -> str:
        return f"set -e {' '.join(names)}; true"

    def export(self, name: str, value: str) -> str:
        return f"set -gx {name} {self.quoted(value)}"

    def export_content(self, name: str, file: Path, otherwise: str = "") -> str:
        read = f"cat {self.quoted(str(file))}"
        return f"set -gx {name} ({read}; or echo {otherwise})" if otherwise else f"set -gx {name} ({read})"

    def require(self, name: str, hint: str) -> str:
        return f'test -n "${name}"; or echo "{hint}" >&2'

    def quoted(self, value: str) -> str:
        """Return a word in quotation marks."""
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"


SHELLS: tuple[Shell, ...] = (Posix(), Fish())


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """The files of the stack in `home`. `secret_file` holds the stack's own VOICEQUEUE_SECRET, where it made one."""

    home: Path
    secret_file: Path

    def write(
        self, settings: Settings, env: Mapping[str, str], *, urls: Mapping[str, str], token_file: Path | None = None
    ) -> Path:
        """Write the files from the environment of the stack's programs; return the path of that for most shells.

        `urls` are variables with the addresses of programs, and `token_file` the file with the gateway's local token,
        if it needs one: the key stays in one place.
        """
        values = {name: os.environ[name] for name in sorted(setting_names() & os.environ.keys()) if os.environ[name]}
        values |= {name: value for name, value in env.items() if name in SHARED_VARIABLES}
        if "prefix" in settings.model_fields_set:  # it may come from .env, which is not read in another folder
            values["VOICEQUEUE_PREFIX"] = settings.prefix
        files = {
            name: str(Path(os.environ[name]).absolute())
            for name in sorted(file_settings(Settings))
            if os.environ.get(name) and name.removesuffix(SUFFIX) not in values
        }
        own = " ".join(
            f"{name}:{_hash(values[name])}" for name in SHARED_VARIABLES if name in values.keys() - os.environ
        )
        (self.home / "redis_url").unlink(missing_ok=True)
        for shell in SHELLS:
            lines = [shell.unset(_unset_names({**values, **files, **urls}))]
            lines += [self._line(shell, name, value) for name, value in values.items()]
            lines += [shell.export(name, value) for name, value in {**files, **urls}.items()]
            lines += [shell.export_content("VOICEQUEUE_API_KEY", token_file)] if token_file else []
            lines += [shell.export(OWN_SETTINGS, own)]
            private_files.write(self.home / f"env{shell.suffix}", "\n".join([*lines, ""]))
        return self.home / "env"

    def _line(self, shell: Shell, name: str, value: str) -> str:
        """Return the line that sets this variable, or says where its value must come from."""
        if name == "VOICEQUEUE_SECRET" and self._is_own_secret(value):
            return shell.export_content(name, self.secret_file)
        if name == "REDIS_URL" and is_secret_value(name, value):
            private_files.write(self.home / "redis_url", value)
            # An unreadable file must not result in the default, which is another Redis.
            return shell.export_content(name, self.home / "redis_url", otherwise="unreadable")
        if (name, value) == ("MUSICAPI_KEY", SIMULATED_KEY) or not is_secret_value(name, value):
            return shell.export(name, value)
        if name not in os.environ:
            return f"{shell.unset([name])}   # a secret: it is read from .env, and not written here"
        return shell.require(name, f"{name} is a secret, which make up does not write down: export it in this shell")

    def _is_own_secret(self, value: str) -> bool:
        return self.secret_file.exists() and value == private_files.read(self.secret_file)


def _unset_names(values: Mapping[str, str]) -> list[str]:
    """Return the variables that the file of an earlier stack may have set and this one does not."""
    names = {*SHARED_VARIABLES, *URL_VARIABLES, "VOICEQUEUE_PREFIX"} | {name + SUFFIX for name in SHARED_VARIABLES}
    return sorted(names - values.keys())
