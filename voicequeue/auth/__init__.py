"""API keys, signatures, and requests of pages of other sites. Pure."""
