"""The gateway's process: `python -m workers.gateway`."""

from __future__ import annotations

import logging
import sys

from config import logs, tracing
from config.settings import settings
from workers.gateway.app import build
from workers.gateway.connections import Bounds, descriptors
from workers.gateway.server import Config, Server

log = logging.getLogger("voicequeue.gateway")

#: With fewer descriptors there are fewer than 234 places, and fewer than 58 for event streams.
FEW = 1_024

#: Seconds that requests get to end when the process is asked to stop.
STOP_S = 10


def main() -> None:
    """Serve until the process is asked to stop."""
    chosen = settings()
    logs.configure(chosen)
    files = descriptors()
    bounds = Bounds.of(files)
    app = build(chosen, bounds)
    tracing.of_requests(app)
    if files < FEW:
        log.warning(
            "this process may open only %s files (LimitNOFILE, ulimit -n): it serves few clients at once", files
        )
    server = Server(
        Config(
            app,
            bounds,
            host=chosen.web_address,
            port=chosen.port,
            timeout_graceful_shutdown=STOP_S,
        )
    )
    server.run()
    if not server.started:
        sys.exit("the gateway did not start; the lines above say why")


if __name__ == "__main__":
    main()
