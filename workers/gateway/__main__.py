"""The gateway's process: `python -m workers.gateway`."""

from __future__ import annotations

import sys

from config import logs, tracing
from config.settings import settings
from workers.gateway.app import build
from workers.gateway.connections import Bounds, descriptors
from workers.gateway.server import Config, Server

#: Seconds that requests get to end when the process is asked to stop.
STOP_S = 10


def main() -> None:
    """Serve until the process is asked to stop."""
    chosen = settings()
    logs.configure(chosen)
    app = build(chosen)
    tracing.of_requests(app)
    server = Server(
        Config(
            app,
            Bounds.of(descriptors()),
            host=chosen.web_address,
            port=chosen.port,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
    )
    server.run()
    if not server.started:
        sys.exit("the gateway did not start; the lines above say why")


if __name__ == "__main__":
    main()
