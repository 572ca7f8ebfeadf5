"""Celery tasks over plain functions that submit and poll orders, and the MusicAPI client."""
