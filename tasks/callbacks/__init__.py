"""Delivers callbacks: signed POST requests to callers, never to internal networks.

- `sender`: one signed POST, and the meaning of its response
- `host_limiter`: concurrency per host, and pauses for hosts that do not respond
- `delivery`: the step behind the task `callback.deliver`
"""
