"""The file that gives another shell the settings of a running stack: `. .voicequeue/env`. It holds no secret.

Secrets are referenced by the file that holds them, or the shell is asked to export them itself.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from config.secret_source import file_settings
from config.settings import Settings, is_secret_value, setting_names
from voicequeue.auth.secret_files import SUFFIX
from workers import private_files

#: The simulator accepts any key.
SIMULATED_KEY = "any"

#: The variables that a stack sets for its programs and that another shell needs as well.
SHARED_VARIABLES = (
    "REDIS_URL",
    "MUSICAPI_BASE_URL",
    "MUSICAPI_KEY",
    "VOICEQUEUE_AUDIO_ALLOWED_HOSTS",
    "VOICEQUEUE_PUBLIC_URL",
    "VOICEQUEUE_SECRET",
)


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """The file of the stack in `home`. `secret_file` holds the stack's own VOICEQUEUE_SECRET, where it made one."""

    home: Path
    secret_file: Path

    def write(
        self, settings: Settings, env: Mapping[str, str], *, web: str | None, token_file: Path | None = None
    ) -> Path:
        """Write the file from the environment of the stack's programs; return its path.

        `web` is the address of the gateway, and `token_file` the file with its local token, if it needs one.
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
        file = self.home / "env"
        (self.home / "redis_url").unlink(missing_ok=True)
        lines = [_unset_line({**values, **files}), *(self._line(name, value) for name, value in values.items())]
        lines += [f"export {name}={shlex.quote(path)}" for name, path in files.items()]
        private_files.write(file, "\n".join([*lines, *_gateway_lines(web, token_file), ""]))
        return file

    def _line(self, name: str, value: str) -> str:
        """Return the line that sets this variable, or says where its value must come from."""
        if name == "VOICEQUEUE_SECRET" and self._is_own_secret(value):
            return f"export {name}={_content_of(self.secret_file)}"
        if name == "REDIS_URL" and is_secret_value(name, value):
            private_files.write(self.home / "redis_url", value)
            # An unreadable file must not result in the default, which is another Redis.
            return f"export {name}={_content_of(self.home / 'redis_url', otherwise='unreadable')}"
        if (name, value) == ("MUSICAPI_KEY", SIMULATED_KEY) or not is_secret_value(name, value):
            return f"export {name}={shlex.quote(value)}"
        if name not in os.environ:
            return f"unset {name}   # a secret: it is read from .env, and not written here"
        hint = f"{name} is a secret, which make up does not write down: export it in this shell"
        return f'[ -n "${{{name}:-}}" ] || echo "{hint}" >&2'

    def _is_own_secret(self, value: str) -> bool:
        return self.secret_file.exists() and value == private_files.read(self.secret_file)


def _unset_line(values: Mapping[str, str]) -> str:
    """Return the line that unsets variables that the file of an earlier stack may have set and this one does not."""
    names = {*SHARED_VARIABLES, "VOICEQUEUE_PREFIX"} | {name + SUFFIX for name in SHARED_VARIABLES}
    return f"unset {' '.join(sorted(names - values.keys()))}"


def _gateway_lines(web: str | None, token_file: Path | None) -> Iterator[str]:
    """Yield the gateway's address, and a reference to the file with its key: the key stays in one place."""
    if web:
        yield f"export VOICEQUEUE_GATEWAY_URL={shlex.quote(web)}"
        if token_file:
            yield f"export VOICEQUEUE_API_KEY={_content_of(token_file)}"


def _content_of(file: Path, *, otherwise: str = "") -> str:
    """Return the shell expression for the content of a file, or for another word if it cannot be read."""
    return f'"$(cat {shlex.quote(str(file))}{f" || echo {otherwise}" if otherwise else ""})"'
