"""The commands that people run first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from simulator.process import Simulator
from tests.acceptance.conftest import FAST, jobs
from tests.conftest import eventually
from voicequeue import State, VoiceQueue
from workers.local.ports import free_port
from workers.local.stack import procfile

ROOT = Path(__file__).parents[2]

#: They want the ports that people expect: one after the other.


def environment(home: Path, **more: str) -> dict[str, str]:
    """A bare environment in which the embedded defaults hold, with a folder of the test's own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "MUSICAPI_KEY")}
    return {**kept, "VOICEQUEUE_HOME": str(home), **more}


def demo(home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What `make demo` runs."""
    command = [sys.executable, "-m", "workers.local.demo"]
    env = environment(home, **more)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)


def test_the_demo_shows_a_dozen_voices_become_songs(tmp_path: Path) -> None:
    """`make demo`: exit code 0, twelve of twelve, links and what was spent."""
    done = demo(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12 succeeded" in done.stdout
    assert "228 credits spent" in done.stdout
    assert done.stdout.count("/media/") == 24


def test_the_demo_says_so_when_jobs_do_not_succeed(tmp_path: Path) -> None:
    """No upstream is no success: the exit code tells, the gate says why, and nothing hangs."""
    done = demo(
        tmp_path,
        MUSICAPI_KEY="x",
        MUSICAPI_BASE_URL="http://127.0.0.1:9",
        VOICEQUEUE_DEMO_S="5",
        VOICEQUEUE_COOLDOWN_S="60",
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 12 succeeded" in done.stdout
    assert "upstream_down" in done.stdout


def test_up_stays_up_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """`make up`: prints where everything is, serves, and takes all its processes with it. Another shell gets the same
    settings by the file that it names, but for secrets that somebody gave."""
    secret = "whsec_" + "c2VjcmV0" * 4
    with up(tmp_path, VOICEQUEUE_KEEP_DAYS="30", VOICEQUEUE_CALLBACK_SECRET=secret) as stack:
        lines = said_until_it_is_up(stack)
        [sourced] = [line.split("#")[0].strip() for line in lines if line.strip().startswith(". ")]
        doctor = f"{sourced} && {Path(sys.executable).parent}/voicequeue doctor --strict"
        looked = subprocess.run(doctor, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert looked.returncode == 0, looked.stdout + looked.stderr
        assert "2 alive: worker-" in looked.stdout
        assert secret not in (tmp_path / "env").read_text(encoding="utf-8")
        opened_with_the_local_token(tmp_path, sourced, lines)
        stack.send_signal(signal.SIGINT)
        assert stack.wait(40) == 0
    eventually(lambda: not still_running(tmp_path))


def test_up_that_is_killed_or_hung_up_leaves_nothing_that_pays_twice(tmp_path: Path) -> None:
    """SIGKILL of `make up` with POSTs on their way: what it has started ends in order, POSTs first and Valkey last,
    and the next one starts after that. When the terminal is closed it ends as it does at Ctrl-C. No order is charged
    twice, none is unsure."""
    with Simulator(latency_s=1.0, voice_s=0.5, music_s=60) as upstream:
        env = {**FAST, "MUSICAPI_KEY": "key-of-the-account", "MUSICAPI_BASE_URL": upstream.api_url}
        with up(tmp_path, **env, VOICEQUEUE_HTTP_THREADS="2") as first:
            said_until_it_is_up(first)
            with queue_of(tmp_path) as queue:
                queue.enqueue_many(jobs(40))
                eventually(lambda: queue.batch("voices").states[State.CHARGING])
            left = psutil.Process(first.pid).children(recursive=True)
            first.kill()
        with up(tmp_path, **env, VOICEQUEUE_HTTP_THREADS="2") as second:
            said_until_it_is_up(second)
            assert [process for process in left if process.is_running()] == []
            with queue_of(tmp_path) as queue:
                eventually(lambda: queue.batch("voices").states[State.CHARGING])
                assert queue.batch("voices").states[State.UNSURE] == 0
            left = psutil.Process(second.pid).children(recursive=True)
            second.send_signal(signal.SIGHUP)
            assert second.wait(40) == 0
        assert [process for process in left if process.is_running()] == []
        ledger = upstream.ledger()
    lines = "".join(log.read_text(encoding="utf-8") for log in (tmp_path / "log").glob("worker.*.log")).splitlines()
    outcomes = [json.loads(line)["outcome"] for line in lines if '"event": "ordered"' in line]
    assert outcomes == ["pending"] * len(ledger["charges"])
    assert ledger["double_charges"] == []


@contextmanager
def up(home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """What `make up` runs."""
    command = [sys.executable, "-m", "workers.local.up"]
    env = environment(home, **more)
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as stack:
        try:
            yield stack
        finally:
            stack.terminate()


def said_until_it_is_up(stack: subprocess.Popen[str]) -> list[str]:
    """What `make up` prints until it is up."""
    lines: list[str] = []
    assert stack.stdout is not None
    while "Ctrl-C stops it" not in (line := stack.stdout.readline()):
        assert line, lines
        lines.append(line)
    return lines


def opened_with_the_local_token(home: Path, sourced: str, lines: list[str]) -> None:
    """The printed link opens the page, and the shell that took the settings the API; the token is in no file but its
    own, which nobody else can read."""
    told = subprocess.check_output(f'{sourced} && echo "$VOICEQUEUE_URL $VOICEQUEUE_KEY"', shell=True, text=True)
    url, key = told.split()
    [link] = [word for line in lines for word in line.split() if "?token=" in word]
    assert requests.get(f"{url}/v1/status", headers={"Authorization": f"Bearer {key}"}, timeout=10).status_code == 200
    assert requests.get(f"{url}/v1/status", timeout=10).status_code == 401
    page = requests.get(link, timeout=10)
    assert (page.status_code, page.url) == (200, f"{url}/")
    holders = [file for file in home.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
    assert holders == [home / "local_token"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def queue_of(home: Path) -> VoiceQueue:
    """A connection to the Valkey of the stack in this folder."""
    return VoiceQueue((home / "redis_url").read_text().strip())


def still_running(home: Path) -> list[str]:
    """Processes whose command names the folder."""
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if str(home) in command]


def started(name: str, home: Path, **env: str) -> subprocess.Popen[str]:
    """The process of that name as the Procfile starts it."""
    command = f"PATH={Path(sys.executable).parent}:$PATH; {procfile()[name]}"
    environ = environment(home, VOICEQUEUE_LOG_FORMAT="text", PORT=str(free_port()), **env)
    return subprocess.Popen(
        command, shell=True, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and all that it has said, once it has ended by itself."""
    try:
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said


def test_a_redis_url_that_celery_would_misread_starts_no_process(tmp_path: Path) -> None:
    """Each ends at once and says in one line what is wrong, without the password: a worker would have taken messages
    from a stranger's Redis on this machine."""
    url = "redis+sentinel://:s3cr3t@sentinel:26379/mymaster"
    processes = [started(name, tmp_path, REDIS_URL=url) for name in ("worker", "flower", "web")]
    for code, said in map(end_of, processes):
        assert code == 1
        assert "REDIS_URL: the Redis URL must look like redis://" in said
        assert "s3cr3t" not in said
        assert "Traceback" not in said
        assert "ready" not in said


def test_a_worker_whose_pulse_cannot_start_ends_and_says_why(tmp_path: Path, valkey_url: str) -> None:
    """It would take messages and archive nothing, and no other process would know of it."""
    code, said = end_of(started("archive", tmp_path, REDIS_URL=valkey_url, VOICEQUEUE_ARCHIVE="nosuch://songs"))

    assert code == 1
    assert "the pulse cannot start, so the worker ends: Unusable: VOICEQUEUE_ARCHIVE cannot be used" in said
    assert "ready" not in said
