"""Floor 5: what lessons and teachers need and the library does not: exercises, baselines, studies of designs."""
