"""Attacks on a running queue. In sequence, the names of the tests are the promises of docs/explanation/security.md."""
