"""Token ids of one species: specials, chromosomes, genes in rank order; and counts brought into that order."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b, shake_256
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.errors import ModelError
from uce.genes.tables import GeneTable

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The published order. OPEN is never placed in a sentence: every chromosome opens with its own token.
PAD, OPEN, CLOSE, CLS = 0, 1, 2, 3
SPECIALS = 4


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Token ids of one species for one model.

    The token of chromosome c is 4 + c, that of the gene of rank g is 4 + chromosomes + g. Ranks are sorted by
    (chromosome code, start, id), so sorted ranks are already the order of genes in a sentence.

    Attributes
    ----------
    vectors
        (4 + chromosomes + genes, protein_dim) float32, the vector of every token.
    chromosome_names
        Sorted; the position is the chromosome code.
    gene_chromosomes
        (genes,) chromosome code of every rank.
    gene_keys
        (genes,) hash of the gene id of every rank, the same in every file and for ever.
    ranks
        (table rows,) rank of every row of the gene table.
    """

    vectors: NDArray[np.float32]
    chromosome_names: tuple[str, ...]
    gene_chromosomes: NDArray[np.int32]
    gene_keys: NDArray[np.uint64]
    ranks: NDArray[np.int64]

    @property
    def first_gene(self) -> int:
        """Token of the gene of rank 0."""
        return SPECIALS + len(self.chromosome_names)


def build_vocabulary(
    table: GeneTable,
    specials: NDArray[np.float32],
    *,
    chromosome_vectors: Mapping[str, NDArray[np.float32]] | None = None,
) -> Vocabulary:
    """Number the tokens of a species and collect their vectors.

    Parameters
    ----------
    table
        The species' genes.
    specials
        (4, protein_dim): vectors of PAD, OPEN, CLOSE and CLS, from the model.
    chromosome_vectors
        Vectors an imported model brings along, by "species:chromosome"; they win over those of the table, and these
        over drawn ones.

    Raises
    ------
    ModelError
        The model's width differs from the table's.
    """
    if specials.shape != (SPECIALS, table.dim):
        msg = (
            f"gene table of {table.species}: vectors ({table.encoder}) are {table.dim} wide, the model has special "
            f"vectors of shape {specials.shape}. Use the gene tables the model was made for."
        )
        raise ModelError(msg)
    names, codes = np.unique(table.chromosomes, return_inverse=True)
    order = np.lexsort((table.ids, table.starts, codes))
    ranks = np.empty(len(table), dtype=np.int64)
    ranks[order] = np.arange(len(table))
    own = {f"{table.species}:{name}": vector for name, vector in table.chromosome_vectors.items()}
    named = {**own, **(chromosome_vectors or {})}
    chromosomes = [_chromosome(table.species, str(name), table.dim, named) for name in names]
    return Vocabulary(
        vectors=np.concatenate([specials, np.stack(chromosomes), table.vectors[order]]).astype(np.float32, copy=False),
        chromosome_names=tuple(names.tolist()),
        gene_chromosomes=codes[order].astype(np.int32),
        gene_keys=gene_keys(table.ids[order]),
        ranks=ranks,
    )


def _chromosome(
    species: str, chromosome: str, dim: int, named: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    vector = named.get(f"{species}:{chromosome}")
    if vector is None:
        return chromosome_vector(species, chromosome, dim)
    if vector.shape != (dim,):
        name = f"{species}:{chromosome}"
        msg = f"chromosome vector {name} has shape {vector.shape}, {(dim,)} is needed. Import the model again."
        raise ModelError(msg)
    return vector


def gene_keys(ids: NDArray[np.str_]) -> NDArray[np.uint64]:
    """(genes,) 64-bit hashes of gene ids (BLAKE2b of the UTF-8 text, little-endian)."""
    digests = b"".join(blake2b(gene.encode(), digest_size=8).digest() for gene in ids.tolist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def chromosome_vector(species: str, chromosome: str, dim: int) -> NDArray[np.float32]:
    """(dim,) standard normal numbers that depend on nothing but the two names; a shorter one is a prefix of a longer.

    SHAKE-256 of "species:chromosome" gives 64-bit words, Box and Muller's transform pairs of normal numbers. They are
    rounded to multiples of 2^-16, so that the last bits of a machine's mathematics library do not show.
    """
    pairs = (dim + 1) // 2
    bits = shake_256(f"{species}:{chromosome}".encode()).digest(16 * pairs)
    words = np.frombuffer(bits, dtype="<u8").reshape(pairs, 2)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:dim]
    rounded: NDArray[np.float32] = (np.rint(normal * 65536) / 65536).astype(np.float32)
    return rounded


def to_ranks(counts: "csr_matrix", rows: NDArray[np.int64], vocabulary: Vocabulary) -> "csr_matrix":
    """Bring the columns of a file into rank order.

    Parameters
    ----------
    counts
        (cells, columns) CSR, whole numbers in float64.
    rows
        (columns,) row of the gene table for every column, -1 where the name was not resolved.
    vocabulary
        Of the same gene table.

    Returns
    -------
    (cells, genes) CSR in rank order: unresolved columns left out, columns of one gene summed, sorted, no zeros.
    """
    from scipy.sparse import csr_matrix

    ranks = np.where(rows >= 0, vocabulary.ranks[np.maximum(rows, 0)], -1)
    columns = ranks[counts.indices]
    kept = columns >= 0
    # The running number of kept entries at each row's end: the new indptr without a loop over rows.
    ends = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
    shape = (counts.shape[0], len(vocabulary.ranks))
    unsorted = csr_matrix((counts.data[kept], columns[kept].astype(counts.indices.dtype), ends), shape=shape)
    # There and back is a counting sort, three times as quick as sorting row by row.
    result = unsorted.tocsc().tocsr()
    result.sum_duplicates()
    result.eliminate_zeros()
    return result
