"""promtool, which checks alert rules: on PATH, or out of Debian's package `prometheus`, which is not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Where it is put; make clean takes it away.
OWN = ROOT / ".venv" / "bin" / "promtool"

MISSING = "promtool is missing, and Debian's package `prometheus` could not be fetched; `make setup` tries it again"


def executable() -> str | None:
    """Its path, if it is there."""
    return str(OWN) if OWN.exists() else shutil.which("promtool")


def install() -> bool:
    """Take it out of Debian's package where it is not there; whether it is then."""
    if executable() is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory() as folder:
            for command in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", "prometheus"]):
                subprocess.run(command, cwd=folder, check=False, capture_output=True)
            for package in Path(folder).glob("prometheus_*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=False)
            found = Path(folder) / "usr" / "bin" / "promtool"
            if found.exists():
                shutil.copy2(found, OWN)
    return executable() is not None


if __name__ == "__main__":
    sys.exit(None if install() else f"{MISSING}. The tests of the alert rules will fail for it; everything else works.")
