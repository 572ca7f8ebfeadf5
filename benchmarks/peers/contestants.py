"""The contestants: how each queue is installed, started and supplied with jobs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from workers.local.stack import ROOT, procfile

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
LOCKS = HERE / "locks"

#: The environments of the queues; `make clean` removes them.
HOME = ROOT / "build" / "peers"

#: Worker processes of each contestant.
PROCESSES = 2

#: Concurrent coroutines per process of asyncio queues.
COROUTINES = 100

#: The name of the contestant that the others are compared with.
OURS = "voicequeue"


class NotInstalled(Exception):
    """A queue could not be installed; the text says why."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One queue in one mode. Its commands are run with the programs in `bin`."""

    name: str  # for `--only` and the plot
    peer: str  # the queue whose app, environment and pins it uses
    workers: Sequence[str]  # one shell command per process
    producer: str
    how: str  # a description for the notes of the table
    bin: Path
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    manner: str = ""  # the mode, if the queue has two
    is_whole: bool = False  # whether one coroutine runs a whole job
    max_coroutines: int = 1_000_000  # maximum per process

    @property
    def is_ours(self) -> bool:
        """True for voicequeue."""
        return self.name == OURS

    @property
    def title(self) -> str:
        """The name in the table."""
        name = f"{self.peer} {version(self)}".strip()
        return f"{name}, {self.manner}" if self.manner else name


#: Each waiting coroutine of saq holds a connection, and Valkey accepts 10,000 by default.
SAQ_MOST = 4_800

#: The modes of queues that have two.
STEPS, WHOLE = "a task a step", "a coroutine a job"


def _peers() -> tuple[Contestant, ...]:
    celery = f"celery -A celery_app worker --concurrency {PROCESSES} -l WARNING --without-gossip --without-mingle"
    rq = (
        "rq worker --quiet --with-scheduler -w rq.worker.SimpleWorker -S json -u $RACE_REDIS --disable-job-desc-logging"
    )
    return (
        _peer("celery", [celery], f"prefork, {PROCESSES} children; {STEPS}, polls by `retry`"),
        _peer(
            "dramatiq",
            [f"dramatiq dramatiq_app --processes {PROCESSES} --threads 8"],
            f"{PROCESSES} processes of 8 threads; {STEPS}, polls by `Retry`",
        ),
        _peer("rq", [rq] * PROCESSES, f"{PROCESSES} `SimpleWorker`s; {STEPS}, polls by `enqueue_in` and its scheduler"),
        _peer(
            "huey",
            [f"huey_consumer huey_app.huey -k process -w {PROCESSES} --no-periodic --quiet"],
            f"{PROCESSES} processes; {STEPS}, polls by `RetryTask` and its scheduler",
        ),
        *_asyncio_peers(),
    )


def _asyncio_peers() -> Iterator[Contestant]:
    arq = ["arq arq_app.WorkerSettings --custom-log-dict arq_app.LOG"] * PROCESSES
    taskiq = (
        f"taskiq worker taskiq_app:broker --workers {PROCESSES} --max-async-tasks $RACE_COROUTINES --log-level WARNING"
    )
    scheduler = "taskiq scheduler taskiq_app:scheduler --update-interval 1 --loop-interval 1 --log-level WARNING"
    saq, streaq = f"saq saq_app.settings --workers {PROCESSES}", f"streaq run streaq_app:worker --workers {PROCESSES}"
    polls = "polls by `Retry`, looked for ten times a second"
    yield _in_steps("arq", arq, polls)
    polls = "polls by `schedule_by_time`, which its scheduler, a third process, looks at once a second at most"
    yield _in_steps("taskiq", [taskiq, scheduler], polls)
    yield _in_steps("saq", [saq], "polls by `scheduled`, looked at once a second at most")
    yield _in_steps("streaq", [streaq], "polls by `StreaqRetry`, looked at every half second")
    yield from (_whole("arq", arq), _whole("taskiq", [taskiq]))
    yield from (replace(_whole("saq", [saq]), max_coroutines=SAQ_MOST), _whole("streaq", [streaq]))


def _in_steps(name: str, workers: Sequence[str], polls: str) -> Contestant:
    peer = _peer(name, workers, f"{PROCESSES} processes of {COROUTINES} coroutines, one a step; {polls}")
    return replace(peer, name=f"{name}-steps", manner=STEPS, env={"RACE_STEPS": "1"})


def _whole(name: str, workers: Sequence[str]) -> Contestant:
    how = f"{PROCESSES} processes of {COROUTINES} coroutines, one a job, which sleep between polls"
    return replace(_peer(name, workers, how), manner=WHOLE, is_whole=True)


def _peer(name: str, workers: Sequence[str], how: str) -> Contestant:
    return Contestant(name, name, workers, f"python {name}_app.py", how, HOME / name / "bin", APPS)


def _ours() -> Contestant:
    worker = procfile()["worker"].removeprefix("exec ")
    return Contestant(
        OURS,
        OURS,
        # One process is kept free for polls, as by default.
        [f"{worker} --concurrency {PROCESSES + 1}"],
        "python -m benchmarks.peers.ours",
        f"prefork, {PROCESSES + 1} children, 32 calls each at once; a task for up to 100 jobs, polls by `retry`",
        Path(sys.executable).parent,
        ROOT,
        {
            "MUSICAPI_KEY": "any",
            "VOICEQUEUE_LOG_LEVEL": "WARNING",
            "VOICEQUEUE_MAX_IN_FLIGHT": "100000",
            "VOICEQUEUE_INITIAL_IN_FLIGHT": "100000",
        },
    )


#: In the order of the table: first those that store each step in Redis, then those that keep it in a coroutine.
CONTESTANTS: tuple[Contestant, ...] = (_ours(), *_peers())


def pins() -> dict[str, list[str]]:
    """Return the requirements of each queue."""
    lines = (HERE / "pins.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: requirements for name, *requirements in words}


def lock(peer: str) -> Path:
    """Return the file that pins a queue's environment, indirect requirements included."""
    return LOCKS / f"{peer}.txt"


def version(contestant: Contestant) -> str:
    """Return the pinned release."""
    if contestant.is_ours:
        return ""
    return pins()[contestant.peer][0].partition("==")[2]


def install(contestant: Contestant) -> None:
    """Create the queue's environment, unless it exists with the same pins. Raises NotInstalled."""
    if contestant.is_ours:
        return
    home, requirements, lock_file = HOME / contestant.peer, pins()[contestant.peer], lock(contestant.peer)
    marker, marker_text = home / "pins", "\n".join([*requirements, lock_file.read_text(encoding="utf-8")])
    if marker.exists() and marker.read_text(encoding="utf-8") == marker_text:
        return
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--constraint", str(lock_file), *requirements])
    marker.write_text(marker_text, encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise NotInstalled(re.sub(r"\S*[/\\]\S*", "…", errors[-1])[:200])
