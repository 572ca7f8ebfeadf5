"""Shared test support: factories, proxies, a scripted upstream, a browser, a terminal."""
