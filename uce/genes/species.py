"""Which species a file is of: from ids, from symbols, from what the file says. Never silently."""

from uce.genes.catalogue import Species, canonical_species, catalogue, find_species

__all__ = ["Species", "canonical_species", "catalogue", "find_species"]
