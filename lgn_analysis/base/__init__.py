"""What knows nothing of logic gates: errors, validation, memory, files, signals, ranks."""
