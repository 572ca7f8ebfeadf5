"""Check a deployment by what its Redis shows."""
