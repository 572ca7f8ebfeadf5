"""Failed logins to the job page: an address waits after failures, longer each time.

An address never waits because of another one. While logins fail from many addresses at once, each has one attempt
instead of five; a valid key at the first attempt always works.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

from voicequeue.storage.connection.keyspace import Keyspace

#: Attempts of an address before it waits; the first and the longest wait (seconds). Each wait is twice the one before.
ATTEMPTS = 5
WAIT_S = 5.0
WAIT_MAX_S = 300.0

#: Seconds after the last attempt until an address's failures are forgotten.
FORGET_S = 900

#: This many addresses with a failed login within this many seconds are a distributed attack.
ATTACK_ADDRESSES = 20
ATTACK_S = 60.0

#: The number of addresses that are stored, the latest ones.
ADDRESSES_MAX = 10_000


class LoginAttempts:
    """Failed logins to one queue's page, by address. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

    def count_attempt(self, address: str, now: float) -> float:
        """Count an attempt as failed before its key is checked, so that concurrent attempts are counted too.

        Return the seconds that this address has to wait; 0: check the key.
        """
        limits = (ATTEMPTS, WAIT_S, WAIT_MAX_S, FORGET_S, ATTACK_ADDRESSES, ATTACK_S, ADDRESSES_MAX)
        return float(self._keyspace.run_script("login_attempt", _network(address), f"{now:.6f}", *limits))

    def succeeded(self, address: str) -> None:
        """Uncount an attempt with a valid key. Earlier failures remain: one valid key excuses no guesses."""
        self._keyspace.run_script("login_succeeded", _network(address))


def _network(host: str) -> str:
    """Return the network that counts as one caller: an IPv4 address, or a /64 of IPv6."""
    try:
        address = ip_address(host)
    except ValueError:
        return "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))
