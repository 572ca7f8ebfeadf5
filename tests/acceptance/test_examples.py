"""The examples of the docs, each run as it is: a person who follows them has songs at the end."""

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

from tests.acceptance.conftest import Build, House
from tests.conftest import eventually
from tests.node import NODE
from voicequeue.auth import signatures
from workers.local.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SECRET = "what signs the callbacks of these tests"
ORDER = {"audio_url": "https://example.com/ana.wav", "song": {"prompt": "[Verse]\nla la", "title": "La"}}


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """A worker, a gateway, and who delivers callbacks."""
    house = build_for_all(
        workers=1,
        web=True,
        VOICEQUEUE_SECRET=SECRET,
        VOICEQUEUE_CALLBACK_ALLOW="127.0.0.1",
        VOICEQUEUE_CALLBACK_FIRST_S="0.2",
    )
    house.stack.start_callbacks()
    return house


def environment(house: House, app: str = "") -> dict[str, str]:
    """As the docs say to set it; `app` is where an example serves."""
    return {
        **os.environ,
        "REDIS_URL": house.redis_url,
        "VOICEQUEUE_URL": house.web or "",
        "VOICEQUEUE_KEY": house.stack.web_key() or "",
        "CALLBACK_SECRET": signatures.receiver_secret(signatures.callback_secret(SECRET), app),
    }


def run(house: House, *command: object) -> str:
    """What an example prints."""
    done = subprocess.run(
        list(map(str, command)), env=environment(house), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(house: House, app: str, *command: object) -> Iterator[None]:
    """An example's own server."""
    server = subprocess.Popen(list(map(str, command)), env=environment(house, app))
    try:
        yield
    finally:
        server.terminate()
        server.wait(10)


def answer(method: str, url: str, **more: Any) -> Any:
    """What that server answers; None while it is not there yet."""
    try:
        return requests.request(method, url, timeout=10, **more).json()
    except requests.ConnectionError:
        return None


def test_the_script_prints_the_songs(house: House) -> None:
    """And again at once, for nothing."""
    printed = run(house, sys.executable, EXAMPLES / "script.py")

    assert [line.split()[:2] for line in printed.splitlines()] == [["Ana", "succeeded"], ["Bo", "succeeded"]]
    assert printed.count("http://") == 4
    charged = house.ledger()["charged"]
    assert run(house, sys.executable, EXAMPLES / "script.py") == printed
    assert house.ledger()["charged"] == charged


def test_node_prints_the_songs(house: House) -> None:
    """Without any package."""
    printed = run(house, NODE, EXAMPLES / "node.mjs")

    assert "it will cost 19 credits" in printed
    assert printed.splitlines()[-1].startswith("succeeded http://")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_prints_the_job_with_its_songs(house: House) -> None:
    """As JSON."""
    assert '"state":"succeeded"' in run(house, "sh", EXAMPLES / "curl.sh")


def test_the_fastapi_app_orders_a_voice_and_tells_its_songs(house: House) -> None:
    """And names the field that is wrong."""
    port = free_port()
    app = f"http://127.0.0.1:{port}"
    uvicorn = (sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app", "--log-level", "warning")
    with serving(house, app, *uvicorn, "--port", port):
        eventually(lambda: answer("GET", f"{app}/openapi.json"))
        job_id = answer("POST", f"{app}/voices", json={**ORDER, "key": "fastapi"})["id"]
        eventually(lambda: len(answer("GET", f"{app}/voices/{job_id}")["songs"]) == 2, within_s=40)

        assert answer("POST", f"{app}/voices", json={"audio_url": "ftp://x"})["detail"][0]["field"] == "audio_url"
        assert requests.get(f"{app}/voices/nobody", timeout=10).status_code == 404


def test_the_django_app_is_called_back_with_the_songs(house: House) -> None:
    """By a callback whose signature holds; one without is refused."""
    port = free_port()
    app = f"http://127.0.0.1:{port}"
    with serving(house, app, sys.executable, EXAMPLES / "django_app.py", "runserver", "--noreload", port):
        eventually(lambda: answer("GET", f"{app}/voices/nobody"))
        job_id = answer("POST", f"{app}/voices", json={**ORDER, "key": "django"})["id"]
        eventually(lambda: len(answer("GET", f"{app}/voices/{job_id}")["songs"] or ()) == 2, within_s=40)

        assert answer("POST", f"{app}/voices", json={"audio_url": "ftp://x"}).keys() == {"audio_url"}
        assert requests.post(f"{app}/called-back", json={}, timeout=10).status_code == 401
