"""The HTTP gateway: `uvicorn workers.gateway.app:app`."""
