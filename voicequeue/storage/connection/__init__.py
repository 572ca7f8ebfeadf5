"""The connection to Redis: clients, retries, errors, keys and the clock."""
