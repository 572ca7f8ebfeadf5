"""The one-machine stack: `make up` and `make demo`."""
