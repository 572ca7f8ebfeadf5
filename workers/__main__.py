"""Celery's commands for our app: `python -m workers worker …` and `python -m workers flower …`.

They take the options of `celery -A workers.app worker …`, which does the same. But Celery's own command imports all its
commands first, and all plugins: each worker would load Flower, Tornado and prompt_toolkit.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from workers.startup import lean_imports, require_usable_redis

#: The commands: their modules and functions.
COMMANDS = {"worker": ("celery.bin.worker", "worker"), "flower": ("flower.command", "flower")}


class CeleryCommands(click.Group):
    """A group that imports only the command that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name]
        with lean_imports():
            command: click.Command = getattr(import_module(module), function)
        return command


def main() -> Any:
    """Run the command that the arguments name."""
    with lean_imports():
        from celery.bin.base import CLIContext  # noqa: PLC0415

        from config.settings import settings  # noqa: PLC0415
        from workers.app import app  # noqa: PLC0415

    require_usable_redis(settings().redis_url)
    context = CLIContext(app=app, no_color="NO_COLOR" in os.environ, workdir=None)
    return CeleryCommands("workers", help="Run a worker, or Flower.").main(prog_name="python -m workers", obj=context)


if __name__ == "__main__":
    main()
