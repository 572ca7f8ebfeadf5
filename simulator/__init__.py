"""A stand-in for MusicAPI: the same contract, dials for delays, faults and credits, and a ledger of what it charged.

`python -m simulator` runs it, `simulator.process.Simulator` runs it from a test or a benchmark. It imports nothing
of voicequeue, so it judges voicequeue from outside. The layers, each using only those after it:
__main__ → control, api → doors, webhooks, wire → musicapi → dials, rules, limits → faults → answers → clips → ledger
→ orders, chance, checks, clock.
"""
