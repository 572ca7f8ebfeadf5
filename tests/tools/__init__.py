"""Tools beside the tests: `make torture` and `make screenshots`."""
