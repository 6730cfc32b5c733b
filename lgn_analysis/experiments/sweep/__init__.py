"""Many runs, each made once: cache, costs, compilation, workers on this machine and on others."""
