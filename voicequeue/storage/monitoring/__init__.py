"""Monitoring: the event log, metrics and throughput."""
