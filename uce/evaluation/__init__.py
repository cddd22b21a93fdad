"""Scores of cell vectors."""
