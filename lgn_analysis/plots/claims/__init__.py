"""One module per claim: it draws the frame of the experiment of the same name."""
