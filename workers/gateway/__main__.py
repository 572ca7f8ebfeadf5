"""The gateway's process: `python -m workers.gateway`."""

from __future__ import annotations

import logging
import sys

from config import logs, tracing
from config.settings import settings
from workers.gateway.app import build
from workers.gateway.server.connections import Bounds, descriptors
from workers.gateway.server.http_server import Config, Server

log = logging.getLogger("voicequeue.gateway")

#: Below this many file descriptors, fewer than 234 requests and 58 event streams fit.
FEW = 1_024

#: Seconds that requests get to finish at shutdown.
STOP_S = 10


def main() -> None:
    """Serve until the process is stopped."""
    config = settings()
    logs.configure(config)
    files = descriptors()
    bounds = Bounds.of(files)
    app = build(config, bounds)
    tracing.of_requests(app)
    if files < FEW:
        log.warning(
            "this process may open only %s files, which limits its connections: raise LimitNOFILE or ulimit -n", files
        )
    server = Server(
        Config(
            app,
            bounds,
            host=config.web_address,
            port=config.port,
            timeout_graceful_shutdown=STOP_S,
        )
    )
    server.run()
    if not server.started:
        sys.exit("the gateway could not start; see the log lines above")


if __name__ == "__main__":
    main()
