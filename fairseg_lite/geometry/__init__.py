"""Floor 0: pure functions on boxes, masks and pixels."""
