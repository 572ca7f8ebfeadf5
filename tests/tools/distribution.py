"""`make dist`: build the packages and the bill of materials in `dist/`, and use them as their users do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email import message_from_string
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

from packaging.metadata import Metadata

from config.settings import Settings
from voicequeue.domain.states import State
from voicequeue.version import BUILD_VARIABLE, RELEASE, VERSION
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"

#: The time in packages outside of a git checkout: that of hatchling.
_NO_COMMIT_TIME = "1580601600"

_HEADING = re.compile(r"^## ([0-9][^ \n]*)", re.MULTILINE)
_PINNED = re.compile(r"^[a-z0-9][^ \n]*==[^\\\n]*", re.MULTILINE)


class DistributionError(Exception):
    """A package is not as it must be; the text says what is wrong."""


def main() -> int:
    """Build everything, check it, and print the files. Return the exit code."""
    try:
        check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
        shutil.rmtree(DIST, ignore_errors=True)
        sdist, wheel = build(ROOT, "sdist", DIST), build(ROOT, "wheel", DIST)
        check_metadata(wheel)
        check_rebuilt(sdist, wheel)
        write_bill(DIST / f"voicequeue-{VERSION}.cdx.json")
        check_installed(wheel)
    except DistributionError as error:
        print(f"make dist: {error}", file=sys.stderr)
        return 1
    for path in sorted(DIST.iterdir()):
        print(f"{sha256(path.read_bytes()).hexdigest()}  dist/{path.name}")
    return 0


def check_changelog(text: str) -> None:
    """Require that the changelog begins with the release. Raises DistributionError."""
    if (newest := next(iter(_HEADING.findall(text)), "none")) != RELEASE:
        raise DistributionError(
            f"the first section of CHANGELOG.md is {newest}, but this is {RELEASE} (voicequeue/version.py): describe "
            f"the release under the heading `## {RELEASE}`"
        )


# ── the packages ──────────────────────────────────────────────────────────────────────────────────


def build(source: Path, target: str, folder: Path) -> Path:
    """Build a package, `sdist` or `wheel`, with the pinned tools of this environment; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    _run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder), cwd=source)
    [path] = set(folder.iterdir()) - before
    return path


def check_metadata(wheel: Path) -> None:
    """Require metadata that an index accepts. Raises DistributionError."""
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as group:
        raise DistributionError(f"the metadata of {wheel.name}: {'; '.join(map(str, group.exceptions))}") from None
    if str(metadata.version) != VERSION:
        raise DistributionError(f"{wheel.name} has the version {metadata.version} in its metadata, not {VERSION}")
    if not message_from_string(text).get_payload():
        raise DistributionError(f"the metadata of {wheel.name} have no description")


def check_rebuilt(sdist: Path, wheel: Path) -> None:
    """Require that the source package builds the very wheel. Raises DistributionError."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(sdist, folder, filter="data")
        [unpacked] = Path(folder).iterdir()
        again = build(unpacked, "wheel", unpacked / "dist")
        if (again.name, again.read_bytes()) != (wheel.name, wheel.read_bytes()):
            raise DistributionError(f"{sdist.name} builds another {again.name} than this checkout")


# ── the bill of materials ─────────────────────────────────────────────────────────────────────────


def write_bill(path: Path, lock: Path = ROOT / "requirements-worker.lock") -> None:
    """Write the packages of the image with their hashes in CycloneDX, checked against its schema.

    Raises DistributionError.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "pyproject.toml"
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        project.write_text(text.replace('dynamic = ["version"]', f'version = "{VERSION}"'), encoding="utf-8")
        options = ("--pyproject", str(project), "--output-reproducible", "--validate", "-o", str(path))
        _run(sys.executable, "-m", "cyclonedx_py", "requirements", *options, str(lock))
    components = json.loads(path.read_text(encoding="utf-8"))["components"]
    listed = {f"{component['name']}=={component['version']}" for component in components}
    pinned = {re.split(r"[ ;]", pin)[0] for pin in _PINNED.findall(lock.read_text(encoding="utf-8"))}
    if listed != pinned:
        raise DistributionError(f"{path.name} and {lock.name} differ: {', '.join(sorted(listed ^ pinned))}")


# ── as users have them ────────────────────────────────────────────────────────────────────────────


def check_installed(wheel: Path) -> None:
    """Install the wheel alone in a new environment, and use it as a producer. Raises DistributionError."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        command = install(wheel, home)
        if (shown := _run(command, "--version", cwd=home)) != f"voicequeue {VERSION}\n":
            raise DistributionError(f"the installed command has another version: {shown}")
        with running_stack(home) as redis:
            enqueue(command, home, redis)
        use_extra(home)


def install(wheel: Path, home: Path) -> str:
    """Install the wheel with the locked versions of its dependencies; return the path of its command."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    constraints, report = home / "constraints.txt", home / "report.json"
    constraints.write_text("\n".join(_PINNED.findall(lock)), encoding="utf-8")
    python = str(home / "venv" / "bin" / "python")
    _run(sys.executable, "-m", "venv", str(home / "venv"))
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--constraint", str(constraints), "--report", str(report), str(wheel), cwd=home)
    _run(*pip, "check", cwd=home)
    for package in json.loads(report.read_text(encoding="utf-8"))["install"]:
        digest, name = package["download_info"]["archive_info"]["hashes"]["sha256"], package["metadata"]["name"]
        if name != "voicequeue" and f"sha256:{digest}" not in lock:
            raise DistributionError(f"{name} was installed from a file that requirements.lock does not contain")
    return str(home / "venv" / "bin" / "voicequeue")


def use_extra(home: Path) -> None:
    """Install the extra `dev`, run a test of an app with its fixture, and the simulator. Raises DistributionError."""
    venv = home / "venv" / "bin"
    [wheel] = DIST.glob("*.whl")
    pip = (str(venv / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    _run(*pip, "--constraint", str(home / "constraints.txt"), f"{wheel}[dev]", "pytest", cwd=home)
    (home / "test_app.py").write_text(
        "def test_a_job_succeeds(voicequeue_queue):\n"
        "    job = voicequeue_queue.enqueue({'audio_url': 'https://recordings.example/ana.wav'})\n"
        "    assert voicequeue_queue.wait(job.id).state == 'succeeded'\n",
        encoding="utf-8",
    )
    _run(str(venv / "python"), "-m", "pytest", "-q", "test_app.py", cwd=home)
    command = [str(venv / "voicequeue"), "simulate", "--port=0", "--control-port=0"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        process.terminate()
    if not line.startswith("MUSICAPI_BASE_URL=http://127.0.0.1:") or process.returncode:
        raise DistributionError(f"`voicequeue simulate` printed {line!r} and ended with {process.returncode}")


@contextmanager
def running_stack(home: Path) -> Iterator[str]:
    """Run Valkey, the simulator and a worker of this checkout; yield the URL of Redis."""
    with Supervisor(print_line=lambda _: None) as supervisor:
        fast = {"VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.3", "VOICEQUEUE_POLL_MAX_INTERVAL_S": "0.5"}
        stack = Stack(supervisor, Settings(_env_file=None), home=home / "stack", env={**fast, "MUSICAPI_KEY": "any"})
        redis = stack.start_valkey()
        stack.start_simulator({"voice_s": 0.5, "music_s": 0.5})
        stack.start_workers(1)
        yield redis


def enqueue(command: str, home: Path, redis: str) -> None:
    """Enqueue a job with the installed command, and require that the worker finishes it. Raises DistributionError."""
    environment = {"REDIS_URL": redis}
    arguments = ("--audio-url", "https://recordings.example/ana.wav", "--batch", "dist")
    _run(command, "enqueue", *arguments, cwd=home, environment=environment)
    _run(command, "watch", "--batch", "dist", cwd=home, environment=environment)
    [job] = json.loads(_run(command, "jobs", "--batch", "dist", "--json", cwd=home, environment=environment))
    if job["state"] != State.SUCCEEDED:
        raise DistributionError(f"the job of the installed command has not succeeded: {job['state']}")


def _run(*command: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end, apart from this checkout's modules; return its output. Raises DistributionError."""
    env = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    env |= {BUILD_VARIABLE: VERSION, "SOURCE_DATE_EPOCH": commit_time(), **(environment or {})}
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise DistributionError(f"`{' '.join(command)}` has not ended within 10 minutes") from None
    if done.returncode:
        raise DistributionError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def commit_time() -> str:
    """Return the time of the commit in Unix seconds: two builds of it have the same bytes."""
    if fixed := os.environ.get("SOURCE_DATE_EPOCH"):
        return fixed
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return _NO_COMMIT_TIME


if __name__ == "__main__":
    sys.exit(main())
