"""Several hosts, with links that can be cut."""
