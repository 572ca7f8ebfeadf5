"""What a job is and may become: its spec, states, transitions, limits and prices. Does no I/O and takes `now`."""
