"""The start of a process, with what it needs and no more."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from config import tracing

#: redis-py imports this if it is installed, for metrics that we do not use; traces need it.
_METRICS_SDK = "opentelemetry.sdk.metrics"

#: What libraries import if it is installed, for what we do not use: structlog rich, colorama and greenlet, Celery
#: pygments, kombu yaml, requests chardet, and billiard cffi, with which each child would compile a parser of C.
_UNUSED = ("cffi", "chardet", "colorama", "greenlet", "pygments", "rich", "yaml")


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

    Garbage collections would free nothing meanwhile, and later ones skip the results. Libraries do not import their
    optional dependencies that we do not use.
    """
    gc.disable()
    names = _UNUSED if tracing.is_enabled() else (*_UNUSED, _METRICS_SDK)
    hidden = {name: None for name in names if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # Python's way to make an import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        gc.enable()
