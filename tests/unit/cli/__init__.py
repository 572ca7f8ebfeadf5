"""Tests of the command line without Redis."""
