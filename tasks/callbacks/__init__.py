"""Delivers callbacks: what callers want to be told, signed, to addresses that are nobody's inner network.

- `sender`: one signed POST, and what its answer means
- `hosts`: how many at once, and who is left alone for a while
- `deliver`: the step behind the task `callback.deliver`
"""
