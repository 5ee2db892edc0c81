"""Floor 3: Torch7 files (`.t7`), and the official networks in them as ours."""
