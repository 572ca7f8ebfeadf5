"""Jobs in Redis: records, indexes, flow control, and the Lua scripts that write them. No other package runs scripts."""
