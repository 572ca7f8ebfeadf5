"""What a running queue reports about itself: the event log, metrics and throughput."""
