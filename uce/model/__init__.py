"""The encoder, its files, and models of others."""
