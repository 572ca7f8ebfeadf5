"""Fixtures shared with tests/web, tests/store and tests/integration.

Tests of whole processes are in modules called test_…_stack.py.
"""

from tests.integration.conftest import build as build_bench
from tests.integration.conftest import worker_store
from tests.store.conftest import command, working_folder
from tests.web.conftest import build_gateway, gateway, keyless, local, server, shared_token_file, token_file

__all__ = [
    "build_bench",
    "build_gateway",
    "command",
    "gateway",
    "keyless",
    "local",
    "server",
    "shared_token_file",
    "token_file",
    "worker_store",
    "working_folder",
]
