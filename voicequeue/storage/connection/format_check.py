"""The check of a queue's format, once for each new connection: every process that connects to a queue makes it.

A queue that was restored, or replaced by a failover, is thus checked again. What programs change is checked by each
script as well (scripts/lib/format.lua).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError
from redis.utils import str_if_bytes

from voicequeue.domain.store_format import UNSTAMPED, StoreFormat, misfit
from voicequeue.errors import StoreFormatError

#: The fields of the stamp.
FIELDS = ("version", "oldest_reader")

#: A number of the stamp, the same as in scripts/lib/format.lua.
_NUMBER: Final = re.compile(r"[0-9]{1,4}")


def format_key(prefix: str) -> str:
    """Return the key of the stamp of a queue."""
    return f"{{{prefix}}}:format"


def checked_on_connect(prefix: str) -> Mapping[str, Any]:
    """Return the option of redis-py that checks the queue's format on each new connection."""
    return {"redis_connect_func": _checking(format_key(prefix))}


def _checking(key: str) -> Callable[[Any], None]:
    def connected(connection: Any) -> None:
        # Without health checks: if one fails, it connects again, which would end here again.
        connection.on_connect_check_health(check_health=False)
        connection.send_command("HMGET", key, *FIELDS, check_health=False)
        try:
            problem = misfit(parse_format(connection.read_response()))
        except NoPermissionError:  # a user of a few other keys: the scripts check what it changes
            return
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            problem = f"the key {key} is not a hash: delete it (DEL {key}), and run `voicequeue upgrade`"
        if problem:
            connection.disconnect()
            raise StoreFormatError(problem)

    return connected


def parse_format(fields: Sequence[str | bytes | None]) -> StoreFormat:
    """Return the format that a stamp gives; that of queues without one if it is missing or damaged."""
    texts = [str(str_if_bytes(field or "")) for field in fields]
    numbers = [int(text) for text in texts if _NUMBER.fullmatch(text)]
    return StoreFormat(*numbers) if len(numbers) == len(FIELDS) else UNSTAMPED
