"""Files that say which genes a species has: GTF, GFF3, tables; and how well two lists of names agree."""
