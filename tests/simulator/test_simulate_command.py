"""`voicequeue simulate`: the simulator as a command of the package."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest
import requests

COMMAND = (sys.executable, "-m", "voicequeue.cli", "simulate", "--port=0", "--control-port=0")


def failed(*arguments: str, before: Sequence[str] = COMMAND) -> tuple[int, str]:
    """Return the exit code of a command and its error, on one line."""
    done = subprocess.run([*before, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, " ".join(done.stderr.replace("│", " ").split())


def test_it_prints_the_settings_of_workers_and_has_the_faults() -> None:
    """The address works, the dials are set, and Ctrl-C ends it."""
    options = ("--dial=voice_s=0.5", "--fault=reset_after=0.1", "--fault=rate_limited=0.2")
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, key, control = (process.stdout.readline().split("=", 1)[-1].strip() for _ in range(3))
        answer = requests.get(f"{url}/api/v1/get-credits", headers={"Authorization": f"Bearer {key}"}, timeout=10)
        dials = requests.get(f"{control.split()[4]}/dials", timeout=10).json()
        process.send_signal(signal.SIGINT)

    assert answer.status_code in (200, 429)
    assert dials["voice_s"] == 0.5
    assert dials["post_faults"] == {"reset_after": 0.1, "rate_limited": 0.2}
    assert dials["get_faults"] == {"rate_limited": 0.2}
    assert process.returncode == 0


@pytest.mark.endurance
def test_with_json_scripts_read_the_settings_from_one_line() -> None:
    """Also the URL of the dials, for a port that the system selects."""
    with subprocess.Popen([*COMMAND, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        dials = requests.get(f"{printed['control_url']}/dials", timeout=10).json()
        process.send_signal(signal.SIGTERM)

    assert printed["settings"].keys() == {"MUSICAPI_BASE_URL", "MUSICAPI_KEY"}
    assert "voice_s" in dials
    assert process.returncode == 0


@pytest.mark.endurance
def test_with_json_errors_are_json() -> None:
    """Wrong dials and a port that is taken."""
    code, text = failed("--json", "--dial=voice_s")
    assert (code, json.loads(text)["error"]["code"]) == (2, "usage")
    assert "'voice_s' is not NAME=VALUE" in text

    with socket.create_server(("127.0.0.1", 0)) as listener:
        code, text = failed("--json", f"--port={listener.getsockname()[1]}")
    assert (code, json.loads(text)["error"]["code"]) == (2, "setup")
    assert "Address already in use" in text


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--fault=nosuchfault=1", "there is no fault 'nosuchfault'; there are busy, cut"),
        ("--fault=hang=2", "hang: the odds must be from 0 to 1, such as hang=0.1"),
        ("--dial=nosuchdial=1", "--dial: nosuchdial: there is no such dial; there are voice_s"),
        ("--dial=voice_s", "--dial: 'voice_s' is not NAME=VALUE"),
        ("--port=65536", "--port: must be at most 65535"),
    ],
)
def test_a_wrong_option_is_answered_with_what_exists(option: str, message: str) -> None:
    """And nothing is started."""
    code, text = failed(option)

    assert code == 2
    assert message in text


@pytest.mark.endurance
def test_a_missing_extra_is_named() -> None:
    """With the command that installs it."""
    program = (
        "import sys; sys.modules['aiohttp'] = None; sys.argv = ['voicequeue', 'simulate'];"
        "from voicequeue.cli import main; main()"
    )

    code, text = failed(before=(sys.executable, "-c", program))

    assert code == 2
    assert "pip install 'voicequeue[dev]'" in text
