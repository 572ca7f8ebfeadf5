"""What the tests of the store share beside the store: the command."""

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
class Ended:
    """What became of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its one JSON document."""
        return json.loads(self.out)


#: Runs `voicequeue` with these arguments, and with `stdin=b"…"` on standard input.
Command = Callable[..., Ended]


@pytest.fixture
def at_home(valkey_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and an environment in which commands find this test's jobs."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("VOICEQUEUE_PREFIX", prefix)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The whole command, run in this process."""

    def run(*arguments: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["voicequeue", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main()
        log = logging.getLogger("voicequeue")  # what the command made of it is not other tests'
        log.handlers, log.propagate, log.level = [], True, logging.NOTSET
        told = capsys.readouterr()
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return run
