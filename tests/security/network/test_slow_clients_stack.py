"""Incomplete heads, missing bodies and streams against a gateway process with few file descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import requests

from tests.conftest import eventually
from tests.security.network.raw_clients import HALF, connected
from tests.web.conftest import KEYS, SETTING
from workers.local.ports import free_port

FORM = (
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 8000\r\n\r\n"
)
STREAM = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS['read'][0]}\r\n\r\n".encode()


def test_a_gateway_with_few_descriptors_answers_complete_requests_and_logs_the_limit(
    valkey_url: str, prefix: str, tmp_path: Path
) -> None:
    """150 incomplete heads, missing bodies and streams of one key, with 128 descriptors: complete requests are
    answered. When no descriptor is left the log says what to do, and the gateway recovers when there are more."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    env = {**os.environ, "REDIS_URL": valkey_url, "VOICEQUEUE_PREFIX": prefix, "PORT": str(port)}
    env["VOICEQUEUE_API_KEYS"] = SETTING
    command = ["sh", "-c", f"ulimit -n 128; exec {sys.executable} -m workers.gateway"]
    with log.open("wb") as out, subprocess.Popen(command, env=env, stderr=out) as process, ExitStack() as stack:
        stack.callback(process.terminate)
        eventually(lambda: _answers(url), within_s=30)
        with ThreadPoolExecutor(50) as threads:  # some meet a full queue and retry a second later
            list(threads.map(lambda _: stack.enter_context(connected(url, HALF)), range(150)))
        for _ in range(3):
            assert requests.get(f"{url}/readyz", timeout=5).status_code in (200, 503)
            assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
        for request in (FORM, STREAM):  # 21 places: neither missing bodies nor streams of one key take all
            for _ in range(30):
                stack.enter_context(connected(url, request))
            assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
        eventually(lambda: "connections cannot be accepted (Too many open files)" in log.read_text(encoding="utf-8"))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        eventually(lambda: _answers(url))
    assert "too many connections wait for a request" in log.read_text(encoding="utf-8")
    assert "may open only 128 files" in log.read_text(encoding="utf-8")


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=2).status_code == 200
    except requests.RequestException:
        return False
