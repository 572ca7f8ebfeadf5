"""Job model: spec, states, transitions, limits and prices. Does no I/O and takes the time as `now`."""
