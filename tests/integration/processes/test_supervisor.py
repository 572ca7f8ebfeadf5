"""The supervisor of the local stack, with real processes."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.conftest import eventually
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import CONSUMED
from workers.local.consumers import restart_stalled
from workers.local.home import HomeInUseError, lock_home
from workers.local.ports import free_port
from workers.local.supervisor import Program, Supervisor

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_a_killed_program_is_restarted_and_reported(tmp_path: Path) -> None:
    """The supervisor reports the signal and the log file."""
    lines: list[str] = []
    with Supervisor(lines.append, check_interval_s=0.02) as supervisor:
        supervisor.add(Program("sleeper", SLEEPER, tmp_path / "log" / "sleeper.log"))
        first = supervisor.pid("sleeper")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: supervisor.pid("sleeper") not in (None, first))
    assert lines == [f"sleeper exited (SIGKILL), restarting in 0.2 s; its log: {tmp_path / 'log' / 'sleeper.log'}"]


def test_the_restart_delay_grows_with_exits_in_a_row(tmp_path: Path) -> None:
    """The log has the output of every run."""
    lines: list[str] = []
    failing = [sys.executable, "-c", "print('failure', flush=True); raise SystemExit(3)"]
    with Supervisor(lines.append, check_interval_s=0.02) as supervisor:
        supervisor.add(Program("failing", failing, tmp_path / "failing.log"))
        eventually(lambda: len(lines) >= 3)
    assert [line.split("; ")[0] for line in lines[:3]] == [
        f"failing exited (exit code 3), restarting in {wait} s" for wait in ("0.2", "0.5", "1")
    ]
    assert (tmp_path / "failing.log").read_text().count("failure") >= 3


def test_a_program_that_is_held_down_restarts_at_once_afterwards(tmp_path: Path) -> None:
    """It does not count as an exit in a row, and other programs are restarted meanwhile."""
    lines: list[str] = []
    with Supervisor(lines.append, check_interval_s=0.02) as supervisor:
        for name in ("away", "alive"):
            supervisor.add(Program(name, SLEEPER, tmp_path / f"{name}.log"))
        alive = supervisor.pid("alive")
        assert alive is not None
        with supervisor.held_down("away"):
            assert supervisor.pid("away") is None
            os.kill(alive, signal.SIGKILL)
            eventually(lambda: supervisor.pid("alive") not in (None, alive))
            assert supervisor.pid("away") is None
        assert supervisor.pid("away") is not None
    assert [line.split()[0] for line in lines] == ["alive"]


def test_a_program_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    """It is killed after its stop timeout and restarted; the error names it."""
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with Supervisor(check_interval_s=0.02) as supervisor:
        supervisor.add(Program("deaf", [sys.executable, "-c", program], tmp_path / "deaf.log", stop_timeout_s=0.2))
        first = supervisor.pid("deaf")
        eventually(lambda: "deaf" in (tmp_path / "deaf.log").read_text())
        with (
            pytest.raises(TimeoutError, match=r"deaf did not exit within 0\.2 s"),
            supervisor.held_down("deaf", signal.SIGHUP),
        ):
            pytest.fail("the program did not exit")
        assert supervisor.pid("deaf") not in (None, first)


def test_a_program_is_restarted_for_a_reason_and_killed_alone_if_it_does_not_end(tmp_path: Path) -> None:
    """Its children finish what they do: a killed POST would be an order that may have been charged."""
    lines: list[str] = []
    code = (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen([sys.executable, '-c', \"import time; time.sleep(1); open('finished', 'w')\"]); "
        "open('started', 'w'); signal.pause()"
    )
    with Supervisor(lines.append, check_interval_s=0.02) as supervisor:
        program = Program("hung", [sys.executable, "-c", code], tmp_path / "hung.log", cwd=tmp_path, stop_timeout_s=0.2)
        supervisor.add(program)
        eventually((tmp_path / "started").exists)
        first = supervisor.pid("hung")
        assert first is not None
        supervisor.restart(first, "it consumes nothing")
        supervisor.restart(first, "it consumes nothing")
        eventually(lambda: supervisor.pid("hung") not in (None, first))
        eventually((tmp_path / "finished").exists)
        supervisor.restart(first, "it is another process now")
    assert [line.partition("; ")[0] for line in lines] == [
        "restarting hung: it consumes nothing",
        "hung exited (SIGKILL), restarting in 0.2 s",
    ]


def test_only_processes_of_this_host_that_do_not_consume_are_restarted(redis: Redis, prefix: str) -> None:
    """Without Redis, none is."""
    store, now = JobStore(redis, prefix), time.time()
    for name, pid, host, consumed_at in (
        ("sound", 1, socket.gethostname(), now),
        ("stalled", 2, socket.gethostname(), now - 100),
        ("elsewhere", 3, "another", now - 100),
    ):
        facts = {"host": host, "pid": pid, CONSUMED: {"poll": consumed_at}}
        store.heartbeats["worker"].record(name, now, facts)
    restarted: list[tuple[int, str]] = []

    restart_stalled(redis, prefix, lambda *arguments: restarted.append(arguments))
    restart_stalled(
        connect(f"redis://127.0.0.1:{free_port()}/0"), prefix, lambda *arguments: restarted.append(arguments)
    )

    assert restarted == [(2, "stalled has not consumed the queue poll for 100 s")]


def test_foundations_end_last(tmp_path: Path) -> None:
    """A foundation is stopped after the programs that need it."""
    ended = tmp_path / "ended"
    script = (
        "import signal, sys, pathlib\n"
        "def end(*_):\n"
        "    with pathlib.Path(sys.argv[1]).open('a') as file: file.write(sys.argv[2] + '\\n')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with Supervisor(check_interval_s=0.02) as supervisor:
        for name, foundation in (("base", True), ("worker", False)):
            command = [sys.executable, "-c", script, str(ended), name]
            supervisor.add(Program(name, command, tmp_path / f"{name}.log", is_foundation=foundation))
        eventually(lambda: all("ready" in (tmp_path / f"{name}.log").read_text() for name in ("base", "worker")))
    assert ended.read_text().split() == ["worker", "base"]


#: A supervisor to kill: with a worker that leaves a child behind, a foundation, and the lock on a folder.
KILLED = """
import pathlib, signal, sys
from workers.local.home import lock_home
from workers.local.supervisor import Program, Supervisor

home = pathlib.Path(sys.argv[1])
with lock_home(home) as lock, Supervisor(inherited_fds=[lock.descriptor]) as supervisor:
    for name, foundation in (("base", True), ("worker", False)):
        command = [sys.executable, "-c", sys.argv[2], str(home / "ended"), name]
        supervisor.add(Program(name, command, home / f"{name}.log", is_foundation=foundation))
    signal.pause()
"""

#: A program that needs time to stop. The worker has a child in its own process group, which exits later.
SLOW_TO_END = """
import os, pathlib, signal, sys, time
def end(*_):
    time.sleep(0.3)
    with pathlib.Path(sys.argv[1]).open("a") as file: file.write(sys.argv[2] + "\\n")
    os._exit(0)
if sys.argv[2] == "worker" and (main := os.getpid()) and os.fork() == 0:
    os.setpgid(0, 0)
    while os.getppid() == main: time.sleep(0.02)
    sys.argv[2] = "child"
    end()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True: signal.pause()
"""


def test_a_killed_supervisor_leaves_nothing_behind_and_foundations_end_last(tmp_path: Path) -> None:
    """After SIGKILL of the supervisor its programs receive SIGTERM, foundations stop after the last of their children,
    and no other stack starts from the folder meanwhile."""
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), SLOW_TO_END]) as supervisor:
        logs = [tmp_path / f"{name}.log" for name in ("base", "worker")]
        eventually(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
        with pytest.raises(HomeInUseError, match=f"process {supervisor.pid}"), lock_home(tmp_path, wait_s=9):
            pass
        supervisor.kill()
    lines: list[str] = []
    with lock_home(tmp_path, wait_s=20, print_line=lines.append):
        assert (tmp_path / "ended").read_text().split() == ["worker", "child", "base"]
    assert len(lines) == 1


def test_a_forced_stop_kills_at_once(tmp_path: Path) -> None:
    """A program that ignores SIGTERM is killed as soon as an operator forces the stop."""
    stubborn = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    )
    log, looks = tmp_path / "stubborn.log", itertools.count()
    with Supervisor(check_interval_s=0.02) as supervisor:
        supervisor.add(Program("stubborn", [sys.executable, "-c", stubborn], log))
        eventually(lambda: "ready" in log.read_text())
        supervisor.stop(lambda: supervisor.force() if next(looks) == 2 else None)
        assert supervisor.pid("stubborn") is None
    assert next(looks) >= 3


def test_two_stacks_never_share_a_folder(tmp_path: Path) -> None:
    """Two Valkeys on one append-only file would destroy it: a second stack refuses to start beside a running one, and
    waits for one that is stopping."""
    with lock_home(tmp_path) as lock:
        with pytest.raises(HomeInUseError, match="stop it, or set VOICEQUEUE_HOME"), lock_home(tmp_path, wait_s=9):
            pass
        lock.mark_as_ending()
        with (
            pytest.raises(HomeInUseError, match="still run"),
            lock_home(tmp_path, wait_s=0.2, print_line=lambda _: None),
        ):
            pass
    with lock_home(tmp_path):
        pass
