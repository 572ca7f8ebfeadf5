"""The previous release, as a host would have it, and processes that run one release or the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from workers.local.stack import procfile

ROOT = Path(__file__).resolve().parents[2]

#: The code of the previous release: tests/tools/release_fixture.py renews it.
PREVIOUS = ROOT / "tests" / "releases" / "previous.tar.xz"


def unpack_previous(folder: Path) -> Path:
    """Unpack the previous release; return its folder."""
    with tarfile.open(PREVIOUS) as content:
        content.extractall(folder, filter="data")
    return folder


@dataclass(frozen=True)
class Deployments:
    """The release of each program of a stack: a link per program, as deployments have them.

    A program runs the release that its link names when it starts.
    """

    folder: Path
    previous: Path

    def command(self, name: str, kind: str, *, is_previous: bool) -> str:
        """Return the command of a program that runs a kind of process, at first of this or of the previous release."""
        self.deploy(name, is_previous=is_previous)
        return f"cd '{self._link(name)}' && export PYTHONPATH=$(pwd -P) && {procfile()[kind]}"

    def deploy(self, name: str, *, is_previous: bool) -> None:
        """Let the next start of a program run this or the previous release."""
        self.folder.mkdir(parents=True, exist_ok=True)
        link = self._link(name)
        new = link.with_suffix(".new")
        new.symlink_to(self.previous if is_previous else ROOT)
        new.replace(link)

    def _link(self, name: str) -> Path:
        return self.folder / name


#: A program of the previous release that enqueues a line of jobs after the other.
_PRODUCER = """
import json, sys
from voicequeue import VoiceQueue
with VoiceQueue(sys.argv[1], namespace="*", wait_for_redis_s=60) as queue:
    for line in sys.stdin:
        print(queue.enqueue_many(json.loads(line)).rejected, flush=True)
"""


@dataclass(frozen=True)
class PreviousProducer:
    """A program that uses the library of the previous release."""

    lines: IO[str]
    replies: IO[str]

    def enqueue(self, jobs: Sequence[dict[str, Any]]) -> None:
        """Enqueue jobs."""
        print(json.dumps(jobs), file=self.lines, flush=True)
        assert int(self.replies.readline()) == 0


@contextmanager
def previous_producer(previous: Path, redis_url: str) -> Iterator[PreviousProducer]:
    """Run a producer of the previous release meanwhile."""
    command = [sys.executable, "-c", _PRODUCER, redis_url]
    with subprocess.Popen(
        command, cwd=previous, env=environment_of(previous), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield PreviousProducer(process.stdin, process.stdout)
        process.stdin.close()


def audit_by_previous(previous: Path, redis_url: str) -> str:
    """Audit a queue with the command line of the previous release; return the findings, '' for none."""
    command = [sys.executable, "-m", "voicequeue.cli", "doctor", "--audit"]
    environment = {**environment_of(previous), "REDIS_URL": redis_url}
    audit = subprocess.run(command, cwd=previous, env=environment, capture_output=True, text=True, check=False)
    return audit.stdout + audit.stderr if audit.returncode else ""


def environment_of(previous: Path) -> dict[str, str]:
    """Return the environment of a program of the previous release."""
    return {**os.environ, "PYTHONPATH": str(previous)}
