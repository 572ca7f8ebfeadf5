"""Failed logins to the job page, counted in Redis: each address waits longer from failure to failure.

No address waits for another one's failures. While logins fail from many addresses at once, each of them has
one try instead of five; a right key at the first try always opens.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

from voicequeue.storage.connection.keyspace import Keyspace

#: Tries of an address before it waits; the first wait and the longest (seconds), each twice the one before.
TRIES = 5
WAIT_S = 5.0
WAIT_MAX_S = 300.0

#: Seconds after the last try until an address's failures are forgotten.
FORGET_S = 900

#: So many addresses with a failed login within so many seconds are an attack by many.
MANY = 20
MANY_S = 60.0

#: Addresses that are remembered, the latest.
ADDRESSES_MAX = 10_000


class LoginAttempts:
    """Failed logins to one queue's page, by address. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

    def begin(self, address: str, now: float) -> float:
        """Count a try as failed before its key is looked at, so that many at once are counted too.

        Return the seconds that this address has to wait; 0: the key may be looked at.
        """
        limits = (TRIES, WAIT_S, WAIT_MAX_S, FORGET_S, MANY, MANY_S, ADDRESSES_MAX)
        return float(self._keyspace.run("login_attempt", _network(address), f"{now:.6f}", *limits))

    def succeeded(self, address: str) -> None:
        """Take back the try that was counted. Earlier failures remain: a key of one's own excuses no guesses."""
        self._keyspace.run("login_succeeded", _network(address))


def _network(host: str) -> str:
    """Return what is one caller by all appearances: an IPv4 address, or a /64 of IPv6."""
    try:
        address = ip_address(host)
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))
