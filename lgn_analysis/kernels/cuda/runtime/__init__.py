"""How Triton kernels are started, recorded and compiled."""
