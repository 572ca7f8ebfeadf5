"""Checks of single settings, for config/setting_groups.py."""

from __future__ import annotations

import re
from base64 import b64decode
from ipaddress import ip_network

from pydantic import SecretStr

from voicequeue.auth.signatures import parse_secrets


def check_callback_secrets(secrets: SecretStr) -> SecretStr:
    """Return the root secrets of callbacks. Raises ValueError unless each is valid."""
    for secret in secrets.get_secret_value().split():
        before, _, encoded = secret.partition("whsec_")
        try:
            size = len(b64decode(encoded, validate=True))
        except ValueError:
            size = 0
        if before or not 24 <= size <= 64:
            raise ValueError("must be whsec_ followed by 24 to 64 bytes in base64; separate several with spaces")
    return secrets


def check_secret(secret: SecretStr) -> SecretStr:
    """Return the common secret, or the new and the old one. Raises ValueError for an invalid one."""
    parse_secrets(secret.get_secret_value())
    return secret


def check_hosts_and_networks(entries: str) -> str:
    """Return a list of hosts and networks. Raises ValueError for an invalid entry."""
    for entry in entries.replace(",", " ").split():
        try:
            ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            if set(entry) & set("/:@%*[]"):
                raise ValueError("must be host names, addresses or networks such as 10.1.0.0/16") from None
    return entries


def check_buckets(entries: str) -> str:
    """Return a list of buckets and folders. Raises ValueError for an invalid entry."""
    for entry in entries.replace(",", " ").split():
        if not re.fullmatch(r"(s3://)?[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*/?", entry):
            raise ValueError("must be buckets or folders in them, such as recordings or archive/voices")
    return entries


def check_storage(location: SecretStr) -> SecretStr:
    """Return the location of an archive. Raises ValueError for an invalid one."""
    text = location.get_secret_value()
    if any(character.isspace() for character in text):
        raise ValueError("must not contain spaces or line breaks, not even at its end")
    if "::" in text or ".." in text.split("/"):
        raise ValueError("must be a folder, or an fsspec URL such as s3://bucket/songs")
    return location
