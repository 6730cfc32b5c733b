"""Linear operators, the losses that they are Hessians of, and how a module is called for them."""
