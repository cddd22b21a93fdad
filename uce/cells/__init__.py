"""Cells: counts from files, sentences, batches, finished blocks."""
