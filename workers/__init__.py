"""The processes: the Celery app, its background threads, the gateway and the one-machine stack."""
