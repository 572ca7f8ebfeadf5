"""The HTTP side: the API, the control port, media files and webhooks."""
