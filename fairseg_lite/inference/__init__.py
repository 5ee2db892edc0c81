"""Floor 2: from networks to proposals on whole pictures."""
