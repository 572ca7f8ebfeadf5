"""A Redis in this process: fakeredis, which runs our Lua scripts in Lua 5.1, as Redis does."""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, Any

from voicequeue.errors import VoiceQueueError

if TYPE_CHECKING:
    from voicequeue.storage.connection.client import RedisClient


class MissingExtraError(VoiceQueueError):
    """The packages for tests are not installed; the text says how to install them."""

    def __str__(self) -> str:
        return "voicequeue.testing needs a Redis in this process: pip install 'voicequeue[dev]'"


def start_redis() -> Any:
    """Return an empty Redis, to connect to with `client_of`. Raises MissingExtraError."""
    try:
        import fakeredis  # noqa: PLC0415  it takes half a second, and only tests have it
        import lupa  # noqa: F401, PLC0415
    except ImportError:
        raise MissingExtraError from None
    server: Any = fakeredis.FakeServer()  # its Lua is not part of its types
    client_of(server).eval("return 1", 0)  # it creates its Lua
    server._lua_runtime = _CompilingRuntime(server._lua_runtime)
    return server


def client_of(server: Any) -> RedisClient:
    """Return a client with the options of `voicequeue.storage.connection.client.connect`."""
    import fakeredis  # noqa: PLC0415

    client: RedisClient = fakeredis.FakeRedis(server=server, decode_responses=True, protocol=2)
    return client


class _CompilingRuntime:
    """The Lua of fakeredis with `redis.sha1hex`, which it lacks; it compiles each script only once."""

    def __init__(self, lua: Any) -> None:
        self._lua = lua
        self._compiled: dict[str | bytes, Any] = {"collectgarbage()": lambda: None}  # Lua does so by itself
        lua.globals()[b"redis"][b"sha1hex"] = lambda text: sha1(text, usedforsecurity=False).hexdigest().encode()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lua, name)

    def execute(self, code: str | bytes) -> Any:
        """Run a script."""
        if code not in self._compiled:
            self._compiled[code] = self._lua.compile(code)
        return self._compiled[code]()
