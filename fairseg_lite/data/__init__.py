"""Floor 1: where pictures, instances and training patches come from."""
