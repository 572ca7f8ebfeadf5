"""Install the packages of a lock file into `.venv`, and show the progress: `python3 workers/local/install.py LOCK`.

It runs before anything is installed, so it imports the standard library only. A second run after an interruption
completes the first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PIP = (str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input")
INSTALL = (*PIP, "install", "--progress-bar", "off")

#: Seconds between two lines of progress where the output is not a terminal.
LINE_EVERY_S = 10.0

#: Seconds between two measurements of what is unpacked.
MEASURE_EVERY_S = 2.0

#: The lines of pip's output that are shown after a failure.
SHOWN_AFTER_FAILURE = 20

#: A package in a lock file, its version, and the beginning of a condition, such as another system.
PINNED = re.compile(r"^([\w.-]+)==(\S+)( ; )?", re.MULTILINE)
#: A package whose file pip loads; it may be a file of this machine.
_COLLECTING = re.compile(r"(?:Collecting|Requirement already satisfied:|Processing (?:\S*/)?) ?([\w.]+)")


class Progress:
    """A line that is overwritten on a terminal, or printed every ten seconds elsewhere."""

    def __init__(self, *, is_terminal: bool | None = None) -> None:
        self._is_terminal = sys.stdout.isatty() if is_terminal is None else is_terminal
        self._next_at = time.monotonic() + LINE_EVERY_S

    def show(self, text: str) -> None:
        """Replace the line, or print another one if it is time."""
        if self._is_terminal:
            print(f"\r  {text[:76]}\x1b[K", end="", flush=True)
        elif time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + LINE_EVERY_S
            print(f"  {text}", flush=True)

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._is_terminal:
            print("\r\x1b[K", end="", flush=True)


class InstallError(Exception):
    """An installation failed; the text is the end of its output."""


def main(arguments: Sequence[str]) -> int:
    """Install the packages of a lock file, and voicequeue itself in place. Return the exit code."""
    [lock] = arguments
    started_at = time.monotonic()
    count = package_count((ROOT / lock).read_text(encoding="utf-8"))
    print(f"Installing the {count} packages of {lock} into .venv, once; nothing outside of it changes.", flush=True)
    try:
        _create_environment()
        install_with_progress((*INSTALL, "--require-hashes", "-r", lock), count, Progress())
        _run((*INSTALL, "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."))
    except InstallError as error:
        print(f"{error}\nThe installation is incomplete; run the same command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to complete the installation", file=sys.stderr)
        return 130
    print(f"Installed in {time.monotonic() - started_at:.0f} s; .venv has {_size_mb():,.0f} MB.", flush=True)
    return 0


def package_count(lock: str) -> int:
    """Return how many packages a lock file pins for this system, about: those of other systems have a marker."""
    return sum(match[3] is None for match in PINNED.finditer(lock))


def _create_environment() -> None:
    """Create the environment, or replace one whose interpreter or pip does not run."""
    is_usable = Path(PIP[0]).exists() and _succeeds((*PIP, "--version"))
    if not is_usable:
        _run((sys.executable, "-m", "venv", "--clear", str(VENV)))


def install_with_progress(command: Sequence[str], count: int, progress: Progress) -> None:
    """Run pip and show how far it is. Raises InstallError."""
    collected, output = 0, []
    with subprocess.Popen(  # noqa: S603
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        lines = iter(process.stdout or ())
        for line in lines:
            output.append(line)
            if match := _COLLECTING.match(line):
                collected += 1
                progress.show(f"{min(collected, count)} of {count}: {match[1]}")
            elif line.startswith("Installing collected packages"):
                with _measured(progress, f"unpacking {collected} packages"):
                    output += lines
    progress.clear()
    if process.returncode:
        raise InstallError("".join(output[-SHOWN_AFTER_FAILURE:]))


@contextmanager
def _measured(progress: Progress, text: str) -> Iterator[None]:
    """Show how much is unpacked: pip is silent meanwhile, for most of the time."""
    ended = threading.Event()

    def show_until_end() -> None:
        progress.show(text)
        while not ended.wait(MEASURE_EVERY_S):
            with suppress(OSError):  # pip moves files while they are counted
                progress.show(f"{text}: {_size_mb():,.0f} MB")

    thread = threading.Thread(target=show_until_end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _size_mb() -> float:
    return sum(file.lstat().st_size for file in VENV.rglob("*") if not file.is_symlink() and file.is_file()) / 1e6


def _run(command: Sequence[str]) -> None:
    """Run a command. Raises InstallError with its output."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise InstallError(f"{done.stdout}{done.stderr}".strip())


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0  # noqa: S603


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
