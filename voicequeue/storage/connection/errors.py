"""Redis's errors, translated for callers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ResponseError

from voicequeue.errors import StoreUnavailableError
from voicequeue.storage.connection.problems import ConnectionProblem
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.connection.retry import PERMANENT, UNREACHABLE


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise StoreUnavailableError if Redis does not answer, or refuses a command."""
    started_at = time.monotonic()
    try:
        yield
    except ConnectionProblem as error:
        raise StoreUnavailableError(f"Redis cannot be used: {error}") from error
    except PERMANENT as error:
        raise StoreUnavailableError(f"Redis refuses: {type(error).__name__}") from error
    except RedisRefusalError as error:
        elapsed = f"tried for {time.monotonic() - started_at:.0f} s"
        raise StoreUnavailableError(f"Redis refuses: {error}; {error.cure}; {elapsed}") from error
    except UNREACHABLE as error:
        elapsed = f"tried for {time.monotonic() - started_at:.0f} s"
        raise StoreUnavailableError(f"Redis does not answer: {type(error).__name__}, {elapsed}") from error
    except ResponseError as error:  # no such database, no permission …
        message, _, _ = str(error).partition(", with args")
        raise StoreUnavailableError(f"Redis refuses: {message}") from error
