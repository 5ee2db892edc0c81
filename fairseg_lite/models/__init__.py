"""Floor 1: the networks. Each file shows one network whole; none of them knows where its pictures come from."""
