"""Training steps that ask nothing of the host."""
