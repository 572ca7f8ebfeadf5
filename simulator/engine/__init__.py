"""The behavior: dials, faults, limits, and MusicAPI itself, without HTTP."""
