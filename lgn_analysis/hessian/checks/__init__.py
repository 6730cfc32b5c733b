"""Whether a probe differentiates the loss of the module that it was given."""
