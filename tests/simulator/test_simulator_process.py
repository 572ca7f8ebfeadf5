"""The process: command line, output, shutdown, and complete documentation."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from simulator.engine.dials import CHECKS
from simulator.engine.faults import GET_FAULTS, POST_FAULTS
from simulator.process import Simulator

FOLDER = Path(__file__).parents[2] / "simulator"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a simulator that exits by itself."""
    command = [sys.executable, "-m", "simulator", *arguments]
    return subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, timeout=30, check=False)


def test_it_prints_its_ports_and_ends_on_ctrl_c() -> None:
    """One line once both ports are open, nothing else, and exit code 0."""
    command = [sys.executable, "-m", "simulator", "--port", "0", "--control-port=0"]
    with subprocess.Popen(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stdout
        line = ran.stdout.readline()
        ran.send_signal(signal.SIGINT)
        assert ran.communicate(timeout=10) == ("", "")
    url = r"http://127\.0\.0\.1:\d+"
    assert re.fullmatch(f"simulator: api {url} control {url}\n", line)
    assert ran.returncode == 0


@pytest.mark.endurance
def test_it_ends_in_time_with_clients_that_hang(eventually: Callable[[Callable[[], bool]], None]) -> None:
    """SIGTERM does not wait for them."""
    simulator = Simulator(get_faults={"hang": 1})
    address = urlsplit(simulator.api_url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as client:
        client.sendall(b"GET /api/v1/get-credits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n")
        eventually(lambda: simulator.ledger()["faults"] == {"hang": 1})
        started_at = time.monotonic()
        assert simulator.stop() == 0
    assert time.monotonic() - started_at < 5


def test_dials_can_be_set_at_the_start() -> None:
    """They are Python values here, JSON or bare words on the command line."""
    with Simulator(voice_s=0.5, webhook="never", post_faults={"hang_after": 0.5}) as simulator:
        dials = simulator.dials()
    assert (dials["voice_s"], dials["webhook"], dials["post_faults"]) == (0.5, "never", {"hang_after": 0.5})


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("voice_s=slow", 'voice_s: it must be a number, at least 0, not "slow"'),
        ("speed=1", "speed: there is no such dial"),
        ("voice_s", "'voice_s' is not NAME=VALUE"),
    ],
)
def test_an_invalid_dial_on_the_command_line_is_explained(setting: str, text: str) -> None:
    """Exit code 2, and the text names the dial."""
    ended = run("--dial", setting)
    assert ended.returncode == 2
    assert text in ended.stderr


def test_a_port_that_is_taken_is_explained() -> None:
    """Exit code 1 and one sentence that names it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = run("--port", str(port), "--control-port", "0")
    assert ended.returncode == 1
    assert ended.stderr == f"simulator: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_the_page_names_every_dial_and_every_fault() -> None:
    """All dials and faults are documented."""
    page = (FOLDER / "README.md").read_text()
    missing = [name for name in (*CHECKS, *POST_FAULTS, *GET_FAULTS) if f"`{name}`" not in page]
    assert missing == []


def test_it_imports_nothing_of_the_project() -> None:
    """It imports only the standard library, aiohttp, requests and itself."""
    imports = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
    roots = {root for path in FOLDER.rglob("*.py") for root in imports.findall(path.read_text())}
    assert roots - set(sys.stdlib_module_names) == {"aiohttp", "requests", "simulator"}
