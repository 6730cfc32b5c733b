"""One module per claim; the module of the same name in :mod:`lgn_analysis.plots.claims` draws it."""
