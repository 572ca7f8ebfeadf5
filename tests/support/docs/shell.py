"""One shell for the blocks of a page, as a reader has it."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.docs.blocks import Block

#: Run a stream until the reader has seen enough.
_STREAM = "setsid bash '{script}' & until [ -e '{stop_file}' ]; do sleep 0.05; done; kill -- -$!; wait $! || true"

#: Report each command that fails, as `set -e` would stop at it, and go on with the next one. A response that is an
#: error is a failure (22). All variables reach the programs that a block starts.
_PROLOGUE = """
set -aE
curl() { case "$*" in *http_code*) command curl "$@";; *) command curl --fail-with-body "$@";; esac; }
trap 'echo "$? $BASH_COMMAND" >> "$FAILED"' ERR
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The output of a block, and its commands that failed, each with its exit code."""

    output: str
    failed: list[str]


class Shell:
    """A bash that runs block after block: variables and the working directory last."""

    def __init__(self, folder: Path, scratch: Path, env: Mapping[str, str]) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch, self._numbers = scratch, count()
        self._failed = scratch / "failed"
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**env, "FAILED": str(self._failed)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._send(_PROLOGUE)

    def run(self, block: Block, *, enough: Callable[[str], bool] = bool, timeout_s: float = 60) -> Outcome:
        """Run a block; its `answer` is what the reader types, and a stream runs until its output is `enough`.

        Raises TimeoutError with what was printed so far.
        """
        number = next(self._numbers)
        script, typed, marker = self._scratch / f"{number}.sh", self._scratch / f"{number}.in", f"<<<{number}>>>"
        script.write_text(block.text, encoding="utf-8")
        typed.write_text(f"{block.answer}\n" * 10 if block.answer else "", encoding="utf-8")
        self._failed.write_text("")
        stop_file = self._scratch / f"{number}.seen"
        start = _STREAM.format(script=script, stop_file=stop_file) if block.ends else f". '{script}' < '{typed}'"
        self._send(f"{start}\nprintf '\\n%s\\n' '{marker}'\n")

        def watch(printed: str) -> None:
            if block.ends and enough(printed):
                stop_file.touch()

        output = self._read_until(f"\n{marker}\n".encode(), time.monotonic() + timeout_s, watch)
        output = re.sub(r"(?m)^curl: \(22\).*\n", "", output)  # of `--fail-with-body`, which the page does not have
        failed = self._failed.read_text(encoding="utf-8").splitlines()
        return Outcome(output, [command for command in failed if str(script) not in command])

    def _send(self, text: str) -> None:
        assert self._bash.stdin
        self._bash.stdin.write(text.encode())
        self._bash.stdin.flush()

    def _read_until(self, marker: bytes, deadline: float, watch: Callable[[str], None]) -> str:
        assert self._bash.stdout
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while not received.endswith(marker):
                if not selector.select(deadline - time.monotonic()):
                    raise TimeoutError(received.decode(errors="replace"))
                if not (piece := os.read(self._bash.stdout.fileno(), 65_536)):
                    raise EOFError(f"the shell ended after {received.decode(errors='replace')}")
                received += piece
                watch(received.decode(errors="replace"))
        return received.removesuffix(marker).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        """End the shell, and what it has started."""
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, 9)
        self._bash.wait()
        for stream in (self._bash.stdin, self._bash.stdout):
            if stream:
                stream.close()
