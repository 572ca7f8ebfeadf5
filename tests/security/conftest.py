"""Share the gateway of tests/web, the command of tests/store and the steps of tests/integration; what needs whole
processes stands in modules called test_…_stack.py."""

from tests.integration.conftest import build as build_bench
from tests.store.conftest import at_home, command
from tests.web.conftest import build_gateway, gateway, keyless, local, server, token_file

__all__ = [
    "at_home",
    "build_bench",
    "build_gateway",
    "command",
    "gateway",
    "keyless",
    "local",
    "server",
    "token_file",
]
