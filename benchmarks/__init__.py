"""The same work, measured: `python -m benchmarks` (or `make bench`)."""
