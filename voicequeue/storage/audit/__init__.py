"""The audit of indexes and counters in Redis against the job records, and their repair."""
