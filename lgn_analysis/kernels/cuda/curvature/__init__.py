"""Second derivatives of the soft loss."""
