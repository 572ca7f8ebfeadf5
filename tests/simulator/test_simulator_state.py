"""The state file: tasks and credits survive a restart and a kill, and the ledger stays true."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from simulator.contract.ledger import Ledger, Task
from simulator.contract.orders import Hook, Song
from simulator.server import state_file
from simulator.server.state_file import StateFile

CHECKOUT = Path(__file__).parents[2]
VOICE = {"audio_url": "https://recordings.example/ana.wav"}
SONG = {
    "task_type": "persona_music",
    "mv": "sonic-v5",
    "persona_id": "p",
    "custom_mode": True,
    "prompt": "[Verse]\nla",
    "title": "T",
}


@contextmanager
def simulator(state: Path, *options: str, kill: bool = False) -> Iterator[tuple[str, str]]:
    """Run a simulator on a state file; yield the URLs of its API and of its controls."""
    command = [sys.executable, "-m", "simulator", "--port=0", "--control-port=0", f"--state={state}", *options]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        _, _, api, _, control = process.stdout.readline().split()
        try:
            yield api, control
        finally:
            process.kill() if kill else process.terminate()


def call(method: str, url: str, body: Any = None) -> Any:
    """Return the JSON of a response."""
    return requests.request(method, url, json=body, headers={"Authorization": "Bearer k"}, timeout=10).json()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_tasks_and_credits_survive(tmp_path: Path, *, kill: bool) -> None:
    """A task that was in progress becomes ready, and its links lead to the new port."""
    state = tmp_path / "simulator.db"
    options = ("--media-host=localhost", "--dial=voice_s=0", "--dial=music_s=20")
    with simulator(state, *options, kill=kill) as (api, control):
        task_id = call("POST", f"{api}/api/v1/sonic/create", SONG)["task_id"]
        call("POST", f"{control}/credits", {"add": 100})
        before = call("GET", f"{control}/ledger")

    with simulator(state, *options) as (api, control):
        after = call("GET", f"{control}/ledger")
        call("POST", f"{control}/tasks/{task_id}/finish")
        songs = call("GET", f"{api}/api/v1/sonic/task/{task_id}")["data"]
        port = api.rpartition(":")[2]
        assert [song["audio_url"].startswith(f"http://localhost:{port}/media/") for song in songs] == [True, True]
        assert requests.get(songs[0]["audio_url"].replace("localhost", "127.0.0.1"), timeout=10).status_code == 200
        call("POST", f"{api}/api/v1/sonic/create", SONG)
        assert len(call("GET", f"{control}/ledger")["double_charges"]) == 1
        assert call("GET", f"{control}/ledger")["credits_left"] == 10_000 + 100 - 2 * 15

    assert after["charges"] == before["charges"]
    assert {name: after[name] for name in ("credits_left", "credits_spent", "charged")} == {
        "credits_left": 10_085, "credits_spent": 15, "charged": 1
    }  # fmt: skip


@pytest.mark.endurance
def test_a_reset_forgets_the_file_too(tmp_path: Path) -> None:
    """A test that resets the account must not find it again after a restart."""
    state = tmp_path / "simulator.db"
    with simulator(state) as (api, control):
        call("POST", f"{api}/api/v1/sonic/create-voice", VOICE)
        call("POST", f"{control}/reset")

    with simulator(state) as (_, control):
        assert call("GET", f"{control}/ledger")["charges"] == []
        assert call("GET", f"{control}/ledger")["credits_left"] == 10_000


@pytest.mark.endurance
def test_a_file_that_is_no_state_file_is_named(tmp_path: Path) -> None:
    """It is not overwritten."""
    state = tmp_path / "songs.txt"
    state.write_text("the only copy of my lyrics " * 50)
    command = [sys.executable, "-m", "simulator", "--port=0", "--control-port=0", f"--state={state}"]

    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False)

    assert ended.returncode == 1
    assert f"{state} cannot be used as a state file" in ended.stderr
    assert state.read_text().startswith("the only copy")


def task(number: int) -> Task:
    """Return a task with a webhook."""
    song = Song("Title", "tags", "la", "v5")
    return Task(f"t{number}", "music", "p", f"f{number}", number, float("inf"), "http://x:1", song, 15, Hook("u", "s"))


def test_old_tasks_are_deleted_and_stay_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the file is limited."""
    monkeypatch.setattr(state_file, "TASKS_MAX", 3)
    monkeypatch.setattr(state_file, "_DELETED_AT_ONCE", 5)
    file = StateFile(tmp_path / "state.db")
    ledger = Ledger(1_000, file)
    for number in range(10):
        ledger.charge(task(number))

    restored = Ledger(1_000)
    file.restore(restored)

    assert list(restored.tasks.values()) == [task(7), task(8), task(9)]
    assert (restored.charged, restored.credits_left, restored.credits_spent) == (10, 850, 150)
