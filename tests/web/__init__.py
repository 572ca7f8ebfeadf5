"""The HTTP API: the gateway on a real Valkey, over real sockets."""
