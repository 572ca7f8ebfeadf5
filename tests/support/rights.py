"""Redis users with the rights that config/valkey/users.acl gives to the processes."""

from __future__ import annotations

import re

from redis import Redis

from tests.support.composed import ROOT

_USERS = ROOT / "config" / "valkey" / "users.acl"


def rules(user: str, prefix: str) -> list[str]:
    """Return the rules of a user of the file, for the queue with this prefix; its password is not needed."""
    text = _USERS.read_text(encoding="utf-8")
    [line] = re.findall(rf"^user {user} (.+)$", text, re.MULTILINE)
    words = re.findall(r"\([^)]*\)|\S+", line.replace("PREFIX", prefix))
    return ["nopass" if word.startswith("#") else word for word in words]


def add_rules(admin: Redis, name: str, *words: str) -> None:
    """Create a user, or add rules to it; redis-py's own call knows no selectors."""
    admin.execute_command("ACL", "SETUSER", name, *words)  # type: ignore[no-untyped-call]  # redis-py has no types here


def url_with_rights(redis_url: str, user: str, prefix: str) -> str:
    """Create a user with exactly these rights; return the URL that logs in as it."""
    name = f"{user}-{prefix}"
    with Redis.from_url(redis_url) as admin:
        add_rules(admin, name, *rules(user, prefix))
    return redis_url.replace("//", f"//{name}:any@")
