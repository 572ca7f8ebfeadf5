"""Attacks on a running queue. The names of the tests, read one after the other, are what docs/security.md promises."""
