"""The contract of MusicAPI: what it accepts, what it answers, and the ledger of what it charged. Pure."""
