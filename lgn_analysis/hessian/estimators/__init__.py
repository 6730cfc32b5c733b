"""Algorithms that see an operator: traces, norms, eigenpairs, densities."""
