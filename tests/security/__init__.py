"""Attacks on a running queue. Read in sequence, the names of the tests are the promises of docs/security.md."""
