"""The HTTP gateway: `python -m workers.gateway`."""
