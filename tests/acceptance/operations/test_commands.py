"""The commands that users run first."""

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

ROOT = Path(__file__).parents[3]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without Redis URL and key, in which the defaults apply, with the test's own folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "MUSICAPI_KEY")}
    return {**kept, "VOICEQUEUE_HOME": str(home), **more}


def test_the_demo_turns_a_dozen_voices_into_songs(tmp_path: Path) -> None:
    """`make demo`: exit code 0, twelve of twelve, links and the spent credits."""
    command, env = [sys.executable, "-m", "workers.local.demo"], environment(tmp_path)

    demo_run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)

    assert demo_run.returncode == 0, demo_run.stdout + demo_run.stderr
    assert "12 of 12 succeeded" in demo_run.stdout
    assert "228 credits spent" in demo_run.stdout
    assert demo_run.stdout.count("/media/") == 24


def test_up_serves_until_ctrl_c(tmp_path: Path) -> None:
    """`make up` prints its addresses, serves, and stops all its processes. Another shell gets the same settings from
    the file it names, except for secrets set by the user."""
    secret = "whsec_" + "c2VjcmV0" * 4
    with up(tmp_path, VOICEQUEUE_RETENTION_DAYS="30", VOICEQUEUE_CALLBACK_SECRET=secret) as stack:
        lines = output_until_up(stack)
        [sourced] = [line.split("#")[0].strip() for line in lines if line.strip().startswith(". ")]
        doctor = f"{sourced} && {Path(sys.executable).parent}/voicequeue doctor --strict"
        report = subprocess.run(doctor, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert report.returncode == 0, report.stdout + report.stderr
        assert "2 alive: worker-" in report.stdout
        assert secret not in (tmp_path / "env").read_text(encoding="utf-8")
        check_local_token(tmp_path, sourced, lines)
        stack.send_signal(signal.SIGINT)
        assert stack.wait(40) == 0
    eventually(lambda: not still_running(tmp_path))


def test_up_pays_nothing_twice_after_sigkill_or_a_closed_terminal(tmp_path: Path) -> None:
    """SIGKILL of `make up` with POSTs in flight: its processes stop in order, POSTs first and Valkey last, and the next
    `make up` starts after that. When the terminal is closed it ends as with Ctrl-C. No order is charged twice, none is
    unsure."""
    with Simulator(latency_s=1.0, voice_s=0.5, music_s=60) as upstream:
        env = {**FAST, "MUSICAPI_KEY": "key-of-the-account", "MUSICAPI_BASE_URL": upstream.api_url}
        with up(tmp_path, **env, VOICEQUEUE_UPSTREAM_CONCURRENCY="2") as first:
            output_until_up(first)
            with queue_of(tmp_path) as queue:
                queue.enqueue_many(jobs(40))
                eventually(lambda: queue.batch("voices").states[State.CHARGING])
            processes = psutil.Process(first.pid).children(recursive=True)
            first.kill()
        with up(tmp_path, **env, VOICEQUEUE_UPSTREAM_CONCURRENCY="2") as second:
            output_until_up(second)
            assert psutil.wait_procs(processes, timeout=10)[1] == []
            with queue_of(tmp_path) as queue:
                eventually(lambda: queue.batch("voices").states[State.CHARGING])
                assert queue.batch("voices").states[State.UNSURE] == 0
            processes = psutil.Process(second.pid).children(recursive=True)
            second.send_signal(signal.SIGHUP)
            assert second.wait(40) == 0
        assert psutil.wait_procs(processes, timeout=10)[1] == []
        ledger = upstream.ledger()
    lines = "".join(log.read_text(encoding="utf-8") for log in (tmp_path / "log").glob("worker.*.log")).splitlines()
    outcomes = [json.loads(line)["outcome"] for line in lines if '"event": "submitted"' in line]
    assert outcomes == ["pending"] * len(ledger["charges"])
    assert ledger["double_charges"] == []


@contextmanager
def up(home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run what `make up` runs."""
    command = [sys.executable, "-m", "workers.local.up"]
    env = environment(home, **more)
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as stack:
        try:
            yield stack
        finally:
            stack.terminate()


def output_until_up(stack: subprocess.Popen[str]) -> list[str]:
    """Return what `make up` prints until it is up."""
    lines: list[str] = []
    assert stack.stdout is not None
    while "Ctrl-C stops it" not in (line := stack.stdout.readline()):
        assert line, lines
        lines.append(line)
    return lines


def check_local_token(home: Path, sourced: str, lines: list[str]) -> None:
    """Check that the printed link opens the page, and that the settings give a shell access to the API. The token is
    only in its own file, which other users cannot read."""
    output = subprocess.check_output(
        f'{sourced} && echo "$VOICEQUEUE_GATEWAY_URL $VOICEQUEUE_API_KEY"', shell=True, text=True
    )
    url, key = output.split()
    [link] = [word for line in lines for word in line.split() if "?token=" in word]
    assert requests.get(f"{url}/v1/status", headers={"Authorization": f"Bearer {key}"}, timeout=10).status_code == 200
    assert requests.get(f"{url}/v1/status", timeout=10).status_code == 401
    page = requests.get(link, timeout=10)
    assert (page.status_code, page.url) == (200, f"{url}/")
    holders = [file for file in home.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
    assert holders == [home / "local_token"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def queue_of(home: Path) -> VoiceQueue:
    """Connect to the Valkey of the stack in this folder."""
    return VoiceQueue((home / "redis_url").read_text().strip(), namespace="*")


def still_running(home: Path) -> list[str]:
    """Return the commands of processes that name the folder."""
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if str(home) in command]


def start_process(name: str, home: Path, **env: str) -> subprocess.Popen[str]:
    """Start the process of this name as the Procfile does."""
    command = f"PATH={Path(sys.executable).parent}:$PATH; {procfile()[name]}"
    environ = environment(home, VOICEQUEUE_LOG_FORMAT="text", PORT=str(free_port()), **env)
    return subprocess.Popen(
        command, shell=True, cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the process; return its exit code and output."""
    try:
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, output


def test_a_redis_url_that_celery_would_misread_starts_no_process(tmp_path: Path) -> None:
    """Each process exits at once and reports the error in one line without the password: a worker would have consumed
    messages from another Redis."""
    url = "redis+cluster://:s3cr3t@redis:6379/0"
    processes = [start_process(name, tmp_path, REDIS_URL=url) for name in ("worker", "flower", "web")]
    for code, output in map(end_of, processes):
        assert code == 1
        assert "REDIS_URL: the Redis URL must look like redis://" in output
        assert "s3cr3t" not in output
        assert "Traceback" not in output
        assert "ready" not in output


def test_a_worker_with_an_unusable_archive_exits_with_the_reason(tmp_path: Path, valkey_url: str) -> None:
    """It would consume messages and archive nothing, and no other process would notice."""
    code, output = end_of(
        start_process("archive", tmp_path, REDIS_URL=valkey_url, VOICEQUEUE_ARCHIVE_URL="nosuch://songs")
    )

    assert code == 1
    assert (
        "the background thread cannot start, so the worker exits: "
        "ArchiveStorageError: VOICEQUEUE_ARCHIVE_URL cannot be used" in output
    )
    assert "ready" not in output
