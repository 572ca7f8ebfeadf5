"""The HTTP server and its limits on connections, bodies, concurrency and unread responses."""
