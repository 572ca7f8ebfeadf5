"""Refusals that time mends: Redis answers, but does not serve for now.

It is out of memory, its disk is full, a failover has made it a replica, or too few replicas are connected. Such an
answer is treated like no answer at all: it ends its connection, and the call is tried again on a new one, which may
reach another server. What was refused was not done: a script is refused before its first write, or not at all, and
a transaction as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from redis import Connection, SSLConnection
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

#: The codes with which such an answer begins, and what ends the refusals.
CURES: Mapping[str, str] = {
    "BUSY": "a script runs for too long: wait for its end, or SCRIPT KILL",
    "CLUSTERDOWN": "the cluster does not serve every slot",
    "MASTERDOWN": "it is a replica that has lost its primary: restore their link",
    "MISCONF": "it cannot write its file: free space on its disk",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write: connect them",
    "OOM": "it is full: raise its maxmemory, or keep finished jobs for less long",
    "READONLY": "it is a replica: wait for the end of the failover, or let the Redis URL name the primary",
    "TRYAGAIN": "the cluster is moving its keys",
    "UNBLOCKED": "its role has changed: the next connection reaches the new primary",
}

#: redis-py takes the code away from the texts of these.
_CODES: Mapping[type[ResponseError], str] = {
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}

#: The code stands first; Redis 6 puts it behind a dash where a script was refused, and EXEC behind its own words.
_BEFORE: Final = r"(?:^|^Error running script.* -|because of: )"
_REFUSAL: Final = re.compile(rf"{_BEFORE}((?:{'|'.join(CURES)})(?: .*|$))", re.DOTALL)

#: What redis-py puts before the text of a command in a pipeline, with the command.
_OF_PIPELINE: Final = "of pipeline caused error: "

#: Where a script was refused, which nobody can look up.
_PLACE: Final = re.compile(r" script: .*on @.*", re.DOTALL)


class RedisRefusalError(RedisError):
    """Redis refused a command for now; the text is its own, and begins with the code."""

    @property
    def cure(self) -> str:
        """What ends the refusals."""
        return CURES[str(self).partition(" ")[0]]


def redis_refusal(error: ResponseError) -> RedisRefusalError | None:
    """Return the refusal that an error answer is, or None if waiting does not mend it."""
    code, words = _CODES.get(type(error)), str(error).rpartition(_OF_PIPELINE)[2]
    found = _REFUSAL.search(f"{code} {words}" if code else words)
    return RedisRefusalError(_PLACE.sub("", found[1]).rstrip(".")) if found else None


if TYPE_CHECKING:
    from redis.connection import AbstractConnection as _Base
else:
    _Base = object


class _EndedByRefusals(_Base):
    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one answer. Raises RedisRefusalError, and the connection is closed then."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if refused := redis_refusal(error):
                self.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
                raise refused from None
            raise


class PlainConnection(_EndedByRefusals, Connection):
    """A connection that a refusal ends."""


class SecureConnection(_EndedByRefusals, SSLConnection):
    """The same with TLS."""
