"""The gateway's process: `python -m workers.gateway`."""

from __future__ import annotations

import uvicorn

from config import logs, tracing
from config.settings import settings
from workers.gateway.app import build

#: Seconds that requests get to end when the process is asked to stop.
STOP_S = 10


def main() -> None:
    """Serve until the process is asked to stop."""
    chosen = settings()
    logs.configure(chosen)
    app = build(chosen)
    tracing.of_requests(app)
    uvicorn.run(
        app,
        host=chosen.web_address,
        port=chosen.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",  # what is no HTTP is answered as HTTP, by the app
        timeout_graceful_shutdown=STOP_S,
    )


if __name__ == "__main__":
    main()
