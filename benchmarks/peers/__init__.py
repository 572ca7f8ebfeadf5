"""`make bench PARTS=peers`: the same work on voicequeue and on other queues.

contestants  the queues: how each is installed and started
apps         one small file per queue, run in its own environment
upstream     the fast mock of MusicAPI that all of them call, with counters
ground       a Valkey and an upstream for one heat
race         one run of one contestant, then all of them in turns
flight       memory while ten thousand jobs are in flight: `make bench PARTS=flight`
realistic    jobs that arrive, with the durations of MusicAPI: `make bench PARTS=realistic`
report       the tables and the plot
"""
