"""Hosts whose clocks are wrong or change while processes run, for tests and `make torture`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

#: Python imports `sitecustomize.py` from this folder on its own.
FOLDER = Path(__file__).parent


class SkewedClock:
    """The clock of one host; its processes run with `environment`."""

    def __init__(self, file: Path, ahead: float = 0.0) -> None:
        self._file = file
        self.set(ahead)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that give a process this clock."""
        path = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH", ""))))
        return {"PYTHONPATH": path, "SKEWED_CLOCK": str(self._file)}

    def command(self, command: str) -> str:
        """Return a shell command that runs `command` with this clock."""
        exports = (f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        return f"export {' '.join(exports)}; {command}"

    def set(self, ahead: float) -> None:
        """Set the clock ahead by this many seconds, or behind; running processes follow within 20 ms."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead}", encoding="ascii")
        new.replace(self._file)
