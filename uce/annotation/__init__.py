"""Labels for new cells from a labelled reference, with a confidence that means something, or `unknown`."""
