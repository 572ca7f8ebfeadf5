"""A simulator of MusicAPI: the same contract, dials for delays, faults and credits, and a ledger of its charges.

`python -m simulator` runs it, `simulator.process.Simulator` runs it from a test or a benchmark. It imports nothing
of voicequeue, so it can test voicequeue from outside. Each package imports only those after it: `server` (HTTP),
`engine` (dials, faults, limits, decisions), `contract` (requests, responses, the ledger).
"""
