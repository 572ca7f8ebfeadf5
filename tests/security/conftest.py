"""Share the gateway of tests/web; what needs whole processes stands in modules called test_…_stack.py."""

from tests.web.conftest import build_gateway, gateway, keyless, local, server, token_file

__all__ = ["build_gateway", "gateway", "keyless", "local", "server", "token_file"]
