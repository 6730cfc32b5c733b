"""Which modules' doctests can be collected here."""

import importlib.util

if importlib.util.find_spec("triton") is None:  # it exists for Linux alone
    collect_ignore_glob = ["lgn_analysis/kernels/cuda/**"]
