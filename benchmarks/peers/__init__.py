"""`make bench PARTS=peers`: the same work on voicequeue and on other queues.

contestants  who runs, how each is installed and started
apps         one small file for each peer, in its own environment
upstream     the cheap stand-in that all of them call, and that counts
race         one run of one of them, then all in turns
report       the table and the plot
"""
