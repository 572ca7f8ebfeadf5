"""Compare indexes and counters in Redis with the job records, and repair them."""
