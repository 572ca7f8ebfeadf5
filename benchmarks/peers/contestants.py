"""Who runs: how each is installed, started and fed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workers.stack import ROOT, procfile

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"

#: The peers' environments; `make clean` removes them.
HOME = ROOT / "build" / "peers"

#: Worker processes of each contestant.
PROCESSES = 2

#: The one that the others are compared with.
OURS = "voicequeue"


class NotInstalled(Exception):
    """A peer could not be installed; the text says why."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One queue. Commands are relative to `bin`, where its programs are."""

    name: str
    workers: Sequence[str]  # one shell command for each process that is started
    producer: str
    how: str  # how it runs, for the table's notes
    bin: Path
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it is voicequeue."""
        return self.name == OURS


def _peers() -> tuple[Contestant, ...]:
    celery = f"celery -A celery_app worker --concurrency {PROCESSES} -l WARNING --without-gossip --without-mingle"
    rq = (
        "rq worker --quiet --with-scheduler -w rq.worker.SimpleWorker -S json -u $RACE_REDIS --disable-job-desc-logging"
    )
    taskiq = f"taskiq worker taskiq_app:broker --workers {PROCESSES} --max-async-tasks 100 --log-level WARNING"
    steps, coroutines = (
        "a task a step",
        f"{PROCESSES} processes of 100 coroutines, one a job, which sleep between polls",
    )
    return (
        _peer("celery", [celery], f"prefork, {PROCESSES} children; {steps}, polls by `retry`"),
        _peer(
            "dramatiq",
            [f"dramatiq dramatiq_app --processes {PROCESSES} --threads 8"],
            f"{PROCESSES} processes of 8 threads; {steps}, polls by `Retry`",
        ),
        _peer("rq", [rq] * PROCESSES, f"{PROCESSES} `SimpleWorker`s; {steps}, polls by `enqueue_in` and its scheduler"),
        _peer(
            "huey",
            [f"huey_consumer huey_app.huey -k process -w {PROCESSES} --no-periodic --quiet"],
            f"{PROCESSES} processes; {steps}, polls by `RetryTask` and its scheduler",
        ),
        _peer("arq", ["arq arq_app.WorkerSettings --custom-log-dict arq_app.LOG"] * PROCESSES, coroutines),
        _peer("taskiq", [taskiq], coroutines),
        _peer("saq", [f"saq saq_app.settings --workers {PROCESSES}"], coroutines),
        _peer("streaq", [f"streaq run streaq_app:worker --workers {PROCESSES}"], coroutines),
    )


def _peer(name: str, workers: Sequence[str], how: str) -> Contestant:
    return Contestant(name, workers, f"python {name}_app.py", how, HOME / name / "bin", APPS)


def _ours() -> Contestant:
    worker = procfile()["worker"].removeprefix("exec ")
    return Contestant(
        OURS,
        [f"{worker} --concurrency {PROCESSES}"],
        "python -m benchmarks.peers.ours",
        f"prefork, {PROCESSES} children of 8 threads; a task for up to 25 jobs, polls by `retry`",
        Path(sys.executable).parent,
        ROOT,
        {
            "MUSICAPI_KEY": "any",
            "VOICEQUEUE_LOG_LEVEL": "WARNING",
            "VOICEQUEUE_MAX_IN_FLIGHT": "100000",
            "VOICEQUEUE_FIRST_IN_FLIGHT": "100000",
        },
    )


#: In the table's order.
CONTESTANTS: tuple[Contestant, ...] = (_ours(), *_peers())


def pins() -> dict[str, list[str]]:
    """The requirements of each peer."""
    lines = (HERE / "pins.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: requirements for name, *requirements in words}


def version(contestant: Contestant) -> str:
    """The release that runs, as it is pinned."""
    if contestant.is_ours:
        return ""
    return pins()[contestant.name][0].partition("==")[2]


def install(contestant: Contestant) -> None:
    """Make the peer's environment, unless it is there with the same pins. Raises NotInstalled."""
    if contestant.is_ours:
        return
    home, wanted = HOME / contestant.name, pins()[contestant.name]
    mark = home / "pins"
    if mark.exists() and mark.read_text(encoding="utf-8").split() == wanted:
        return
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    _run([str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted])
    mark.write_text("\n".join(wanted), encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        errors = [line for line in found.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise NotInstalled(re.sub(r"\S*[/\\]\S*", "…", errors[-1])[:200])
