"""Celery messages of other programs: decoding, validation, transport and remote control."""
