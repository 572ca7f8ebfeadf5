"""HTTP requests to URLs that callers name: never into the operator's own network, and bounded in time and size.

- `address_policy`: which addresses are allowed
- `http_client`: one request (`transport` and `deadline` are its parts)
- `retry_after`: the Retry-After header
- `per_host_executor`: how many requests run at once
"""
