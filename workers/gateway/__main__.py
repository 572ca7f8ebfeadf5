"""The gateway's process: `python -m workers.gateway`."""

from __future__ import annotations

import sys

from workers.startup import lean_imports


def main() -> None:
    """Serve until the process is stopped."""
    with lean_imports():
        from workers.gateway.serving import build_server  # noqa: PLC0415

        server = build_server()
    server.run()
    if not server.started:
        sys.exit("the gateway could not start; see the log lines above")


if __name__ == "__main__":
    main()
