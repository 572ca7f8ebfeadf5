"""The fixture that runs the command in the test process."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from voicequeue.cli import main


@dataclass(frozen=True)
class CommandResult:
    """The result of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Parse the one JSON document of the output."""
        return json.loads(self.out)


#: Runs `voicequeue` with these arguments, and with `stdin=b"…"` on standard input.
Command = Callable[..., CommandResult]


@pytest.fixture
def working_folder(valkey_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a working folder and an environment in which commands find this test's jobs."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("VOICEQUEUE_PREFIX", prefix)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(working_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command in this process."""

    def run(*arguments: object, stdin: bytes = b"") -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["voicequeue", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main()
        log = logging.getLogger("voicequeue")  # what the command made of it is not other tests'
        log.handlers, log.propagate, log.level = [], True, logging.NOTSET
        output = capsys.readouterr()
        return CommandResult(int(ended.value.code or 0), output.out, output.err)

    return run
