"""Training steps, many in one call."""
