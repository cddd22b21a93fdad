"""Proteomes to gene tables through ESM2."""
