"""Tests of voicequeue.testing."""
