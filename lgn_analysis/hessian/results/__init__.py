"""What estimators return, and how certain it is."""
