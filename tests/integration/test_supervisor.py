"""The small supervisor, on real processes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import eventually
from workers.local.home import HomeInUse, alone_in
from workers.local.supervisor import Program, Supervisor

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_what_dies_is_started_again_and_said(tmp_path: Path) -> None:
    """A killed program is another process soon after, and the supervisor tells why and where its log is."""
    said: list[str] = []
    with Supervisor(said.append, look_every_s=0.02) as supervisor:
        supervisor.add(Program("sleeper", SLEEPER, tmp_path / "log" / "sleeper.log"))
        first = supervisor.pid("sleeper")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: supervisor.pid("sleeper") not in (None, first))
    assert said == [f"sleeper exited (SIGKILL), restarting in 0.2 s; its log: {tmp_path / 'log' / 'sleeper.log'}"]


def test_what_keeps_dying_is_started_ever_more_rarely(tmp_path: Path) -> None:
    """The wait grows with each death in a row, and the output of all tries is in the log."""
    said: list[str] = []
    failing = [sys.executable, "-c", "print('no luck', flush=True); raise SystemExit(3)"]
    with Supervisor(said.append, look_every_s=0.02) as supervisor:
        supervisor.add(Program("failing", failing, tmp_path / "failing.log"))
        eventually(lambda: len(said) >= 3)
    assert [line.split("; ")[0] for line in said[:3]] == [
        f"failing exited (exit code 3), restarting in {wait} s" for wait in ("0.2", "0.5", "1")
    ]
    assert (tmp_path / "failing.log").read_text().count("no luck") >= 3


def test_what_is_held_down_stays_down_and_comes_back_at_once_afterwards(tmp_path: Path) -> None:
    """An outage for as long as it is wanted, which is no death in a row; the others are looked after meanwhile."""
    said: list[str] = []
    with Supervisor(said.append, look_every_s=0.02) as supervisor:
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
    assert [line.split()[0] for line in said] == ["alive"]


def test_what_ignores_the_signal_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """It is killed once its time is over, and started again; the error names the program."""
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with Supervisor(look_every_s=0.02) as supervisor:
        supervisor.add(Program("deaf", [sys.executable, "-c", program], tmp_path / "deaf.log", stop_s=0.2))
        first = supervisor.pid("deaf")
        eventually(lambda: "deaf" in (tmp_path / "deaf.log").read_text())
        with (
            pytest.raises(TimeoutError, match=r"deaf did not exit within 0\.2 s"),
            supervisor.held_down("deaf", signal.SIGHUP),
        ):
            pytest.fail("it was taken for ended")
        assert supervisor.pid("deaf") not in (None, first)


def test_foundations_end_last(tmp_path: Path) -> None:
    """A program that others stand on outlives them."""
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
    with Supervisor(look_every_s=0.02) as supervisor:
        for name, foundation in (("base", True), ("worker", False)):
            command = [sys.executable, "-c", script, str(ended), name]
            supervisor.add(Program(name, command, tmp_path / f"{name}.log", foundation=foundation))
        eventually(lambda: all("ready" in (tmp_path / f"{name}.log").read_text() for name in ("base", "worker")))
    assert ended.read_text().split() == ["worker", "base"]


#: A supervisor that is killed: a worker that leaves a child behind, what it needs, and the lock on a folder.
KILLED = """
import pathlib, signal, sys
from workers.local.home import alone_in
from workers.local.supervisor import Program, Supervisor

home = pathlib.Path(sys.argv[1])
with alone_in(home) as lock, Supervisor(keeps=[lock.descriptor]) as supervisor:
    for name, foundation in (("base", True), ("worker", False)):
        command = [sys.executable, "-c", sys.argv[2], str(home / "ended"), name]
        supervisor.add(Program(name, command, home / f"{name}.log", foundation=foundation))
    signal.pause()
"""

#: Takes its time to end. The worker has a child in a group of its own, which ends after it.
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
    """SIGKILL of the supervisor: its programs are asked to end, what they need ends when the last of their children is
    gone, and meanwhile no other stack starts from the folder."""
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), SLOW_TO_END]) as supervisor:
        logs = [tmp_path / f"{name}.log" for name in ("base", "worker")]
        eventually(lambda: all(log.exists() and "ready" in log.read_text() for log in logs))
        with pytest.raises(HomeInUse, match=f"process {supervisor.pid}"), alone_in(tmp_path, wait_s=9):
            pass
        supervisor.kill()
    said: list[str] = []
    with alone_in(tmp_path, wait_s=20, say=said.append):
        assert (tmp_path / "ended").read_text().split() == ["worker", "child", "base"]
    assert len(said) == 1


def test_a_stop_that_is_forced_waits_no_longer(tmp_path: Path) -> None:
    """What does not end by itself is waited for, and killed as soon as an operator wants that."""
    stubborn = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    )
    log, looks = tmp_path / "stubborn.log", itertools.count()
    with Supervisor(look_every_s=0.02) as supervisor:
        supervisor.add(Program("stubborn", [sys.executable, "-c", stubborn], log))
        eventually(lambda: "ready" in log.read_text())
        supervisor.stop(lambda: supervisor.force() if next(looks) == 2 else None)
        assert supervisor.pid("stubborn") is None
    assert next(looks) >= 3


def test_two_stacks_never_share_a_folder(tmp_path: Path) -> None:
    """Two Valkeys on one append-only file would destroy it: beside one that runs the second stack refuses at once, and
    one that is ending is waited for."""
    with alone_in(tmp_path) as lock:
        with pytest.raises(HomeInUse, match="stop it, or set VOICEQUEUE_HOME"), alone_in(tmp_path, wait_s=9):
            pass
        lock.mark_as_ending()
        with pytest.raises(HomeInUse, match="still run"), alone_in(tmp_path, wait_s=0.2, say=lambda _: None):
            pass
    with alone_in(tmp_path):
        pass
