"""What does not depend on logic gates: errors, validation, memory, files, signals, ranks."""
