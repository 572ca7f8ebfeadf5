"""The whole queue on one machine: `make up` and `make demo`."""
