"""The HTTP gateway: `uvicorn workers.gateway.asgi:app`."""
