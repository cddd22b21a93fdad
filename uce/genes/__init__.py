"""Genes: tables, names, species, token ids."""
