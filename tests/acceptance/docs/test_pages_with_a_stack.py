"""Pages whose blocks need `make up`: each is followed from top to bottom, all beside one stack."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
import requests
from rich.text import Text

import voicequeue
from config.settings import Settings
from tests.acceptance.conftest import DIALS, FAST
from tests.conftest import eventually
from tests.support.docs.blocks import ROOT, Block, blocks_of
from tests.support.docs.clone import environment, make_clone
from tests.support.docs.reader import Reader
from tests.support.docs.shell import Shell
from voicequeue import Song, VoiceJob, VoiceQueue
from workers.local.stack import Addresses, Stack
from workers.local.supervisor import Supervisor
from workers.local.up import WORKERS, welcome

pytestmark = pytest.mark.endurance

#: Content of a recording.
HASH = "9f86d081" * 8


#: What most pages presuppose: the settings of the stack, and the header with its key in a file.
LOADED = """
. .voicequeue/env
(umask 077; printf 'Authorization: Bearer %s\\n' "$VOICEQUEUE_API_KEY" > .voicequeue/auth); AUTH=@$PWD/.voicequeue/auth
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A stack as `make up` starts it, and the clone that it runs in."""

    clone: Path
    addresses: Addresses
    printed: str

    def queue(self) -> VoiceQueue:
        """Connect as an operator."""
        return VoiceQueue(self.addresses.redis, namespace="*")

    def env(self) -> dict[str, str]:
        """Return what examples in Python read; shells load it from `.voicequeue/env`."""
        secrets = self.clone / ".voicequeue"
        return environment(
            self.clone,
            REDIS_URL=self.addresses.redis,
            VOICEQUEUE_GATEWAY_URL=self.addresses.gateway,
            VOICEQUEUE_API_KEY=(secrets / "local_token").read_text(encoding="utf-8").strip(),
        )


@pytest.fixture(scope="module")
def running(commands: Path, recordings: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Yield what `make up` starts, with quick orders."""
    clone = make_clone(tmp_path_factory.mktemp("reader") / "clone", commands, recordings)
    home = clone / ".voicequeue"
    settings = {
        **FAST,
        "VOICEQUEUE_CALLBACK_ALLOWED_HOSTS": "127.0.0.1",
        "VOICEQUEUE_ARCHIVE_URL": str(clone / "archived"),
        "VOICEQUEUE_AUDIO_ALLOWED_HOSTS": "127.0.0.1",
    }
    with patch.dict(os.environ, settings), Supervisor() as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=home)
        addresses = stack.start_all(workers=WORKERS)
        requests.patch(f"{addresses.simulator_control}/dials", json=dict(DIALS), timeout=5).raise_for_status()
        yield Running(clone, addresses, Text.from_markup(welcome(addresses, stack.write_environment())).plain)


@pytest.fixture(autouse=True)
def restored(running: Running) -> Iterator[None]:
    """Undo after each page what would hold the jobs of the next one."""
    yield
    with running.queue() as queue:
        queue.resume()
        queue.set_limits(in_flight=None)
        queue.set_budget("account", day=None, month=None)
        for key in queue.api_keys():
            if key.revoked_at is None:
                queue.revoke_api_key(key.name)
    token = {"Authorization": f"Bearer {running.env()['VOICEQUEUE_API_KEY']}"}
    eventually(lambda: requests.get(f"{running.addresses.gateway}/v1/status", headers=token, timeout=5).ok)


PAGES = (
    "docs/tutorial/first-song.md",  # it counts all jobs
    "docs/tutorial/spreadsheet.md",
    "docs/tutorial/your-app.md",
    "docs/tutorial/own-account.md",
    "README.md",
    "docs/guides/http.md",
    "docs/guides/messages.md",
    "docs/guides/monitoring.md",
    "docs/guides/archive.md",
    "docs/guides/callbacks.md",
    "docs/guides/erasure.md",
    "docs/guides/runbook.md",
    "docs/reference/http-rules.md",
    "docs/reference/doctor.md",
    "docs/reference/logs.md",
    "docs/reference/python.md",
)


def finished(queue: VoiceQueue) -> str:
    """Return the id of a job with songs."""
    song = Song(title="Harbour Lights", prompt="[Verse]\nla la")
    job = queue.enqueue(VoiceJob(audio_url="https://example.com/done.wav", song=song, batch="B", key="done"))
    return queue.wait(job.id, timeout=60).id


def waiting_job(queue: VoiceQueue) -> str:
    """Return the id of a job that waits."""
    queue.pause(reason="a page cancels a job that waits")
    job = queue.enqueue(VoiceJob(audio_url="https://example.com/held.wav", batch="held"))
    queue.pause(batch="held")
    queue.resume()
    return job.id


def expired(queue: VoiceQueue) -> str:
    """Return the id of a failed job of the batch `spring`."""
    queue.pause(reason="a job expires")
    job = queue.enqueue(VoiceJob(audio_url="https://example.com/late.wav", batch="spring", start_within_s=0.1))
    queue.wait(job.id, timeout=60)
    queue.resume()
    return job.id


def refused_callback(queue: VoiceQueue) -> str:
    """Return the id of a callback that was given up, because its address is not public."""
    queue.enqueue(VoiceJob(audio_url="https://example.com/called.wav", callback_url="http://10.0.0.1/", key="called"))
    eventually(lambda: any(queue.callbacks(undelivered=True)))
    return next(queue.callbacks(undelivered=True)).id


def expired_and_refused(queue: VoiceQueue) -> str:
    """Return the id of a refused callback, beside a failed job."""
    expired(queue)
    return refused_callback(queue)


def person(queue: VoiceQueue) -> str:
    """Return the id of a job of a person."""
    with VoiceQueue(os.environ["REDIS_URL"], namespace="shop") as shop:
        url = "https://files.example.com/ana.wav"
        return shop.enqueue(VoiceJob(audio_url=url, audio_sha256=HASH, key="ORDER-17", metadata={"subject": "42"})).id


#: What the reader of a page has done before, as a shell variable with its id.
BEFORE: Mapping[str, tuple[str, Callable[[VoiceQueue], str]]] = {
    "docs/reference/python.md": ("HELD", waiting_job),
    "docs/guides/http.md": ("CALLBACK_ID", expired_and_refused),
    "docs/guides/callbacks.md": ("CALLBACK_ID", refused_callback),
    "docs/guides/erasure.md": ("PERSON", person),
}


def placeholders(running: Running) -> dict[str, list[str]]:
    """Return what readers put in. Shell variables may be set by what the reader did before a block."""
    return {
        "JOB_ID": ["$JOB_ID"],
        "PUT_THE_ID_HERE": ["$JOB_ID"],
        "ID": ["$CALLBACK_ID"],
        "BATCH": ["B"],
        "9f86d081…": [HASH],
        "FILE": ["shop.auth"],
        # An account of a reader has spent nothing yet.
        "account --day 50": ["account --day 5000"],
        "redis://localhost:6379/0": [running.addresses.redis],
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_right_about_every_block(page: str, running: Running, tmp_path: Path) -> None:
    """Its commands work in this order, and print what it shows."""
    with patch.dict(os.environ, running.env()), running.queue() as queue:
        jobs = {"JOB_ID": finished(queue)}
        if page in BEFORE:
            name, prepare = BEFORE[page]
            jobs[name] = prepare(queue)
        job_id = jobs.get("HELD") or jobs["JOB_ID"]
        names = {**vars(voicequeue), "queue": queue, "url": running.addresses.redis, "job_id": job_id}
        env = {**running.env(), **jobs}
        with Shell(running.clone, tmp_path / "scratch", env) as shell, patch.dict(os.environ, env):
            shell.run(Block(page, 0, "sh", LOADED))
            prepared = {"make up": lambda: running.printed}
            reader = Reader(shell, placeholders=placeholders(running), prepared=prepared, names=names)
            problems = reader.read(blocks_of(ROOT / page))
    assert not problems, "\n\n".join(problems)
