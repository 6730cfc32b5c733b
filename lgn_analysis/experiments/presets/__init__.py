"""What is run, as data."""
