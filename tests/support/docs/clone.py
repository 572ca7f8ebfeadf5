"""The folder in which a reader follows a page: a clone of the project with an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.docs.blocks import ROOT
from tests.support.docs.command_server import write_client
from tests.support.recordings import mp3

#: Not in a fresh clone.
_GENERATED = {".venv", ".voicequeue", ".secrets", ".env", ".git", "build", "dist"}

_ROWS = """audio_url,title,prompt,tags
{base}/ana.mp3,Harbour Lights,"[Verse]
The harbour lights are counting ships",warm folk
{base}/bo.mp3,,,
"""

_REDIS_CLI = """#!{python}
import os, sys
from redis import Redis
answer = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True).execute_command(*sys.argv[1:])
print("\\n".join(f"{{name}}:{{value}}" for name, value in answer.items()) if isinstance(answer, dict) else answer)
"""


def make_clone(folder: Path, commands: Path, recordings: str) -> Path:
    """Make a clone with `.venv`, the reader's own spreadsheets, and the command server in place of the script."""
    folder.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name not in _GENERATED:
            (folder / entry.name).symlink_to(entry)
    _make_environment(folder / ".venv", commands)
    for name in ("voices.csv", "songs.csv"):
        (folder / name).write_text(_ROWS.format(base=recordings), encoding="utf-8")
    (folder / "voices.csv.rejected.csv").write_text(f"row,line,reason,audio_url\n7,7,HTTP 404,{recordings}/cy.mp3\n")
    return folder


def _make_environment(folder: Path, commands: Path) -> None:
    real = Path(sys.executable).parent.parent
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").symlink_to(real / "lib")
    (folder / "pyvenv.cfg").symlink_to(real / "pyvenv.cfg")
    for program in (real / "bin").iterdir():
        if program.name not in ("voicequeue", "activate", "redis-cli"):
            (folder / "bin" / program.name).symlink_to(program)
    activate = (real / "bin" / "activate").read_text(encoding="utf-8")
    where = next(line for line in activate.splitlines() if line.startswith("VIRTUAL_ENV="))
    (folder / "bin" / "activate").write_text(activate.replace(where, f'VIRTUAL_ENV="{folder}"'), encoding="utf-8")
    write_client(folder / "bin" / "voicequeue", commands)
    redis_cli = folder / "bin" / "redis-cli"
    redis_cli.write_text(_REDIS_CLI.format(python=sys.executable), encoding="utf-8")
    redis_cli.chmod(0o755)


def environment(clone: Path, **env: str) -> dict[str, str]:
    """Return the environment of a reader's shell: no setting of ours reaches it."""
    path = f"{clone / '.venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(clone), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), **env}


@contextmanager
def command_server(address: Path) -> Iterator[Path]:
    """Run the command server until the end of the block."""
    command = [sys.executable, "-m", "tests.support.docs.command_server", str(address)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VOICEQUEUE_", "REDIS_URL"))}
    with subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        yield address
        server.terminate()


def recording() -> bytes:
    """Return a recording that MusicAPI accepts."""
    return mp3(12)


Placeholders = Mapping[str, list[str]]
