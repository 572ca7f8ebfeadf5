"""Redis's errors as callers are told them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ResponseError

from voicequeue.errors import StoreUnreachable
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.connection.retry import REFUSED, UNREACHABLE


@contextmanager
def reachable() -> Iterator[None]:
    """Raises StoreUnreachable where Redis does not answer, or refuses."""
    began = time.monotonic()
    try:
        yield
    except REFUSED as error:
        raise StoreUnreachable(f"Redis refuses: {type(error).__name__}") from error
    except RedisRefusalError as error:
        tried = f"tried for {time.monotonic() - began:.0f} s"
        raise StoreUnreachable(f"Redis refuses: {error}; {error.cure}; {tried}") from error
    except UNREACHABLE as error:
        tried = f"tried for {time.monotonic() - began:.0f} s"
        raise StoreUnreachable(f"Redis does not answer: {type(error).__name__}, {tried}") from error
    except ResponseError as error:  # no such database, no permission …
        words, _, _ = str(error).partition(", with args")
        raise StoreUnreachable(f"Redis refuses: {words}") from error
