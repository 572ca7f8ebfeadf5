"""Fixtures shared with tests/web, tests/store and tests/integration.

Tests of whole processes are in modules called test_…_stack.py.
"""

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
