"""What the gateway's process serves: `uvicorn workers.gateway.asgi:app`."""

from config import logs, tracing
from config.settings import settings
from workers.gateway.app import build

__all__ = ["app"]

logs.configure(settings())
app = build(settings())
tracing.of_requests(app)
