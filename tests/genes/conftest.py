"""Small gene tables with the names that cause trouble, and the real ones of all species."""

from collections.abc import Callable

import numpy as np
import pytest

from uce.genes.tables import GeneTable

# id, symbol, synonyms, chromosome, start
HUMAN = [
    ("ENSG00000198851", "CD3E", "T3E", "11", 118304730),
    ("ENSG00000167286", "CD3D", "T3D|OKT3", "11", 118338954),
    ("ENSG00000206503", "HLA-A", "HLAA", "6", 29942532),
    ("ENSG00000229215", "HLA-A", "HLAA", "HSCHR6_MHC_COX", 29900000),
    ("ENSG00000136352", "NKX2-1", "TITF1|TTF1", "14", 36516392),
    ("ENSG00000182378", "PLCXD1", "", "X", 276322),
    ("ENSG00000168385", "SEPTIN2", "SEPT2|DIFF6|NEDD5", "2", 241315351),
    ("ENSG00000164402", "SEPTIN8", "SEPT8", "5", 132750819),
    ("ENSG00000145416", "MARCHF1", "MARCH1|RNF171", "4", 163524298),
    ("ENSG00000186205", "MTARC1", "MARC1|MOSC1", "1", 220786913),
    ("ENSG00000173926", "MARCHF3", "MARCH3", "5", 126867714),
    ("ENSG00000173077", "DELEC1", "DEC1|CTS9", "9", 115141807),
    ("ENSG00000119139", "TJP2", "ZO2|DUP-1", "9", 69121264),
    ("ENSG00000104067", "TJP1", "ZO1|DUP-1|CD3E", "15", 29699367),
    ("ENSG00000000460", "C1orf112", "FLJ10706", "1", 169662007),
    ("ENSG00000198888", "MT-ND1", "ND1|MTND1", "MT", 3307),
    ("ENSG00000278817", "", "", "unplaced", 0),
    ("ENSG00000112592", "TBP", "", "6", 170554302),
]


@pytest.fixture(scope="session")
def human() -> GeneTable:
    """Eighteen human genes: one symbol on two loci, shared aliases, an alias that is another's symbol, one unplaced."""
    return table_of(HUMAN)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., GeneTable]:
    """Builds a table from rows (id, symbol, synonyms, chromosome, start)."""
    return table_of


def table_of(
    rows: list[tuple[str, str, str, str, int]],
    *,
    species: str = "homo_sapiens",
    encoder: str = "test-vectors",
    dim: int = 6,
    seed: int = 0,
) -> GeneTable:
    ids, symbols, synonyms, chromosomes, starts = zip(*rows, strict=True)
    return GeneTable.from_rows(
        species=species,
        encoder=encoder,
        ids=ids,
        symbols=symbols,
        synonyms=synonyms,
        chromosomes=chromosomes,
        starts=starts,
        vectors=np.random.default_rng(seed).normal(size=(len(rows), dim)),
    )
