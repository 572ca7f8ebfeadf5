"""The start of a process, with what it needs and no more."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from config import tracing

#: redis-py imports this if it is installed, for metrics that we do not use.
_METRICS_SDK = "opentelemetry.sdk.metrics"


def require_usable_redis(url: str) -> None:
    """Raise SettingsError, which ends the process, if the server of this URL can keep no queue, or TLS with it fails.

    A server that does not answer may do so later: processes wait for it.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415  lean_imports must come first

    from config.settings import SettingsError  # noqa: PLC0415
    from voicequeue.storage.connection.client import connect  # noqa: PLC0415
    from voicequeue.storage.connection.problems import TlsError, UnusableServerError  # noqa: PLC0415

    with suppress(RedisError, OSError), connect(url) as redis:
        try:
            redis.ping()
        except (TlsError, UnusableServerError) as error:
            raise SettingsError(f"REDIS_URL: {error}") from None


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import and build what stays until the end of the process.

    Garbage collections would free nothing meanwhile, and later ones skip the results. redis-py does not import the
    OpenTelemetry SDK, unless traces are enabled.
    """
    gc.disable()
    is_hidden = not tracing.is_enabled() and _METRICS_SDK not in sys.modules
    if is_hidden:
        sys.modules[_METRICS_SDK] = None  # type: ignore[assignment]  # Python's way to make an import fail
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[_METRICS_SDK]
        gc.freeze()
        gc.enable()
