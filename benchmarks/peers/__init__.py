"""`make bench PARTS=peers`: the same work on voicequeue and on other queues.

contestants  who runs, how each is installed and started
apps         one small file for each peer, in its own environment
upstream     the cheap stand-in that all of them call, and that counts
ground       a Valkey and an upstream for one heat
race         one run of one of them, then all in turns
flight       what they take while ten thousand jobs are in flight: `make bench PARTS=flight`
report       the tables and the plot
"""
