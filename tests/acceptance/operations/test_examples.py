"""The examples of the documentation, run unchanged: each ends with songs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.conftest import Build, System
from tests.conftest import eventually
from tests.node import NODE
from voicequeue.auth import signatures
from workers.local.ports import free_port

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
SECRET = "what signs the callbacks of these tests"
ORDER = {"audio_url": "https://example.com/ana.wav", "song": {"prompt": "[Verse]\nla la", "title": "La"}}


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start a worker, a gateway, and a callback process."""
    system = build_shared(
        workers=1,
        web=True,
        VOICEQUEUE_SECRET=SECRET,
        VOICEQUEUE_CALLBACK_ALLOWED_HOSTS="127.0.0.1",
        VOICEQUEUE_CALLBACK_BACKOFF_INITIAL_S="0.2",
    )
    system.stack.start_callbacks()
    return system


def environment(system: System, app: str = "") -> dict[str, str]:
    """Return the environment that the documentation describes; `app` is the URL of an example's server."""
    return {
        **os.environ,
        "REDIS_URL": system.redis_url,
        "VOICEQUEUE_GATEWAY_URL": system.web or "",
        "VOICEQUEUE_API_KEY": system.stack.gateway_token() or "",
        "CALLBACK_SECRET": signatures.receiver_secret(signatures.callback_secret(SECRET), app),
    }


def run(system: System, *command: object) -> str:
    """Run an example; return its output."""
    completed = subprocess.run(
        list(map(str, command)), env=environment(system), capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@contextmanager
def serving(system: System, app: str, *command: object) -> Iterator[None]:
    """Run an example's own server."""
    server = subprocess.Popen(list(map(str, command)), env=environment(system, app))
    try:
        yield
    finally:
        server.terminate()
        server.wait(10)


def answer(method: str, url: str, **more: Any) -> Any:
    """Return the server's response as JSON; None while it is not up."""
    try:
        return requests.request(method, url, timeout=10, **more).json()
    except requests.ConnectionError:
        return None


def test_the_script_prints_the_songs(system: System) -> None:
    """A second run prints the same and costs nothing."""
    printed = run(system, sys.executable, EXAMPLES / "script.py")

    assert [line.split()[:2] for line in printed.splitlines()] == [["Ana", "succeeded"], ["Bo", "succeeded"]]
    assert printed.count("http://") == 4
    charged = system.ledger()["charged"]
    assert run(system, sys.executable, EXAMPLES / "script.py") == printed
    assert system.ledger()["charged"] == charged


def test_node_prints_the_songs(system: System) -> None:
    """Node without any package."""
    printed = run(system, NODE, EXAMPLES / "node.mjs")

    assert "it will cost 19 credits" in printed
    assert printed.splitlines()[-1].startswith("succeeded http://")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_prints_the_job_with_its_songs(system: System) -> None:
    """The job as JSON."""
    assert '"state":"succeeded"' in run(system, "sh", EXAMPLES / "curl.sh")


def test_the_fastapi_app_enqueues_a_voice_and_returns_its_songs(system: System) -> None:
    """An invalid field is named in the response."""
    port = free_port()
    app = f"http://127.0.0.1:{port}"
    uvicorn = (sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app", "--log-level", "warning")
    with serving(system, app, *uvicorn, "--port", port):
        eventually(lambda: answer("GET", f"{app}/openapi.json"))
        job_id = answer("POST", f"{app}/voices", json={**ORDER, "key": "fastapi"})["id"]
        eventually(lambda: len(answer("GET", f"{app}/voices/{job_id}")["songs"]) == 2, within_s=40)

        assert answer("POST", f"{app}/voices", json={"audio_url": "ftp://x"})["detail"][0]["field"] == "audio_url"
        assert requests.get(f"{app}/voices/unknown", timeout=10).status_code == 404


def test_the_django_app_gets_its_songs_by_callback(system: System) -> None:
    """By a signed callback; one without a signature is rejected."""
    port = free_port()
    app = f"http://127.0.0.1:{port}"
    with serving(system, app, sys.executable, EXAMPLES / "django_app.py", "runserver", "--noreload", port):
        eventually(lambda: answer("GET", f"{app}/voices/unknown"))
        job_id = answer("POST", f"{app}/voices", json={**ORDER, "key": "django"})["id"]
        eventually(lambda: len(answer("GET", f"{app}/voices/{job_id}")["songs"] or ()) == 2, within_s=40)

        assert answer("POST", f"{app}/voices", json={"audio_url": "ftp://x"}).keys() == {"audio_url"}
        assert requests.post(f"{app}/callbacks", json={}, timeout=10).status_code == 401
