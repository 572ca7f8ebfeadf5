"""The processes: the Celery app and its pulse, and the one-machine stack."""
