"""promtool and amtool, which check alert rules and the Alertmanager: from PATH, or unpacked from Debian's packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Folder of the unpacked programs; `make clean` removes it.
OWN = ROOT / ".venv" / "bin"

#: Debian's package of each program.
PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}

MISSING = "promtool is missing, and Debian's package `prometheus` could not be fetched; run `make setup` to try again"


def executable(name: str = "promtool") -> str | None:
    """Return the path of a program, or None."""
    return str(OWN / name) if (OWN / name).exists() else shutil.which(name)


def install(name: str) -> bool:
    """Unpack a program from Debian's package unless it is there; return whether it is there now."""
    if executable(name) is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with tempfile.TemporaryDirectory() as folder:
            for command in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", PACKAGES[name]]):
                subprocess.run(command, cwd=folder, check=False, capture_output=True)
            for package in Path(folder).glob(f"{PACKAGES[name]}_*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=False)
            program = Path(folder) / "usr" / "bin" / name
            if program.exists():
                shutil.copy2(program, OWN / name)
    return executable(name) is not None


if __name__ == "__main__":
    has_promtool, _ = install("promtool"), install("amtool")
    sys.exit(None if has_promtool else f"{MISSING}. Alert rule tests will fail; everything else works.")
