"""What happens to a job: Celery tasks (thin) over plain step functions, and the MusicAPI client."""
