"""Training: corpus, objectives, loop."""
