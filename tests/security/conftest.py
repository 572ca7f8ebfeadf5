"""Share the gateway of tests/web and the command; tests of whole processes are in modules called test_…_stack.py."""

from tests.store.conftest import at_home, command
from tests.web.conftest import build_gateway, gateway, local, server

__all__ = ["at_home", "build_gateway", "command", "gateway", "local", "server"]
