"""Read jobs from files: rows, checkpoints, compression, and checks of the recordings that they name."""
