"""API keys, signatures, and the check of web origins. Pure."""
