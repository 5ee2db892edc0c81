"""Floor 3: one training loop for every network, checkpoints that survive a crash, and named recipes."""
