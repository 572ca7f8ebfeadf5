"""The server of the gateway's process."""

from __future__ import annotations

import logging

from config import logs, tracing
from config.settings import settings
from voicequeue.errors import StoreFormatError
from workers.gateway.app import create_app
from workers.gateway.server.connections import ServerLimits, raise_descriptor_limit
from workers.gateway.server.http_server import Server, ServerConfig
from workers.startup import require_usable_redis
from workers.store_check import require_usable_store

log = logging.getLogger("voicequeue.gateway")

#: Below this many file descriptors, fewer than 234 requests and 58 event streams fit.
FEW_DESCRIPTORS = 1_024

#: Seconds that requests get to finish at shutdown.
SHUTDOWN_TIMEOUT_S = 10


def build_server() -> Server:
    """Return the server that the settings describe. Raises SettingsError, SystemExit."""
    config = settings()
    logs.configure(config)
    require_usable_redis(config.redis_url)
    files = raise_descriptor_limit()
    bounds = ServerLimits.for_descriptors(files)
    try:
        require_usable_store(config)
    except StoreFormatError as error:
        raise SystemExit(str(error)) from None
    app = create_app(config, bounds)
    tracing.instrument_fastapi(app)
    if files < FEW_DESCRIPTORS:
        log.warning(
            "this process may open only %s files, which limits its connections: raise LimitNOFILE or ulimit -n", files
        )
    return Server(
        ServerConfig(
            app,
            bounds,
            host=config.web_address,
            port=config.port,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
    )
