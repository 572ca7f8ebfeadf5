"""promtool, which checks alert rules: from PATH, or unpacked from Debian's package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Path of the unpacked promtool; `make clean` removes it.
OWN = ROOT / ".venv" / "bin" / "promtool"

MISSING = "promtool is missing, and Debian's package `prometheus` could not be fetched; run `make setup` to try again"


def executable() -> str | None:
    """Return the path of promtool, or None."""
    return str(OWN) if OWN.exists() else shutil.which("promtool")


def install() -> bool:
    """Unpack promtool from Debian's package unless it is there; return whether it is there now."""
    if executable() is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory() as folder:
            for command in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", "prometheus"]):
                subprocess.run(command, cwd=folder, check=False, capture_output=True)
            for package in Path(folder).glob("prometheus_*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=False)
            promtool = Path(folder) / "usr" / "bin" / "promtool"
            if promtool.exists():
                shutil.copy2(promtool, OWN)
    return executable() is not None


if __name__ == "__main__":
    sys.exit(None if install() else f"{MISSING}. Alert rule tests will fail; everything else works.")
