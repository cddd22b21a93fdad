"""Gene vectors made elsewhere (for UCE, SATURN, TranscriptFormer or by hand) become a gene table."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uce.errors import ModelError
from uce.files import printable, sha256_file, shorten
from uce.genes.annotations.gene import Gene
from uce.genes.annotations.overlap import check_overlap, is_coding, unplaced_gene
from uce.genes.annotations.reading import Annotation
from uce.genes.judging.measures import centred, copies, used_directions
from uce.genes.names import sole_owners, tidy
from uce.genes.tables import GeneTable
from uce.genes.vector_forms import DAMAGED, WIDEST, form_of, grouped_means

# Smaller models have half the width of the next larger one, or less.
_LEAST_RANK, _FEWEST_DIRECTIONS = 0.75, 64


@dataclass(frozen=True, eq=False)
class VectorFile:
    """The vectors of one file.

    Attributes
    ----------
    keys
        (genes,) ids or symbols as in the file, each once.
    vectors
        (genes, width) float32, finite, no row of zeros.
    symbols
        (genes,) symbols beside the keys, "" where there is none; empty where the file has keys alone.
    facts
        Its form and hash, for the table's metadata.
    notes
        What the user should know about it.
    path
        The file.
    """

    keys: tuple[str, ...]
    vectors: NDArray[np.float32]
    symbols: tuple[str, ...]
    facts: Mapping[str, str | int]
    notes: tuple[str, ...]
    path: Path


def read_vector_file(path: str | Path) -> VectorFile:
    """Read gene vectors in any of these forms.

    - `.pt`: a dictionary of symbols or ids to vectors, as UCE and SATURN store them. Of keys that are one in upper case
      the first gives the name and the last the vector, as the published program reads them.
    - `.h5` of TranscriptFormer: a dataset `keys` and a group `arrays` with a dataset for each.
    - `.h5ad`: keys in the index of `obs`, vectors in `X`; a column `symbol` is used where there is one.
    - `.npz`: `vectors`, and `keys`, `gene_id` or `symbol`; rows of one key are isoforms, their mean is taken.

    Vectors without a name are left out, which a note says.

    Raises
    ------
    ModelError
        The file is missing, of another form, damaged, would run code or points at other files; a key stands twice; a
        vector holds NaN, infinity or only zeros, or has another width.
    """
    path = Path(path)
    form = "a file of gene vectors"
    try:
        form, read = form_of(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old encodings; what cannot be read raises
            keys, vectors, symbols = read(path)
    except ModelError:  # it is a ValueError too, and has said what is wrong
        raise
    except DAMAGED as error:
        msg = f"{path}: cannot be read as {form} ({printable(str(error), limit=120)}). Copy or make it again."
        raise ModelError(msg) from error
    tidied = list(map(tidy, keys))
    kept = [row for row, key in enumerate(tidied) if key]
    nameless = len(tidied) - len(kept)
    notes = (f"{nameless:,} of {len(tidied):,} keys are empty: their vectors are left out",) if nameless else ()
    names = tuple(tidied[row] for row in kept)
    beside = tuple(tidy(symbols[row]) for row in kept) if len(symbols) else ()
    _check(path, names, vectors[kept])
    facts = {"vectors_form": form, "vectors_sha256": sha256_file(path)}
    return VectorFile(names, vectors[kept], beside, facts, notes, path)


def _check(path: Path, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
    if not keys:
        msg = f"{path}: no keys in it. Every vector needs the name of its gene."
        raise ModelError(msg)
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        msg = f"{path}: {shorten(twice)} stands twice. Keep one vector of every gene."
        raise ModelError(msg)
    if not 0 < vectors.shape[1] <= WIDEST:
        msg = f"{path}: vectors of {vectors.shape[1]:,} numbers; 1 to {WIDEST:,} are read."
        raise ModelError(msg)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if len(bad):
        named = shorten([keys[row] for row in bad.tolist()])
        msg = f"{path}: the vectors of {named} hold NaN, infinity or only zeros. Make them again."
        raise ModelError(msg)


def refuse_stretched(vectors: NDArray[np.float32], path: str | Path) -> None:
    """Refuse vectors (genes, width) of a smaller model that were brought to a larger width.

    Repeats, zeros, interpolation and linear maps leave the number of directions as it was (`used_directions`). With
    fewer than 64 genes or numbers nothing can be told, with fewer genes than the smaller model has numbers only repeats
    and zeros.

    Raises
    ------
    ModelError
        Naming what comes of such vectors.
    """
    # Genes of one protein have one vector, and add no direction.
    used, most = used_directions(vectors, np.unique(copies(centred(vectors))))
    if most >= _FEWEST_DIRECTIONS and used < _LEAST_RANK * most:
        msg = (
            f"{path}: {vectors.shape[1]:,} numbers a gene, but only {used:,} of {most:,} possible directions: vectors "
            "of a smaller model, stretched. A checkpoint gives all cells nearly one vector then (cosines around .9 "
            "between all cells). Make vectors with the model that the checkpoint names."
        )
        raise ModelError(msg)


def table_from_vector_file(
    file: VectorFile,
    *,
    species: str,
    encoder: str,
    annotation: Annotation | None,
    metadata: Mapping[str, str | int | float] | None = None,
) -> tuple[GeneTable, tuple[str, ...]]:
    """A gene table of imported vectors (origin "imported"), and notes for the user.

    Keys are read as ids, as symbols, or by the symbols beside them, whichever finds more genes of the annotation; these
    give id, symbol, aliases and place. A key without a gene there is id and symbol itself, and has no place. Keys of
    one gene become the mean of their vectors.

    Parameters
    ----------
    encoder
        Name of the kind of vectors.

    Raises
    ------
    InputError
        Under half of the keys are in the annotation.
    ModelError
        The vectors are those of a smaller model, stretched.
    """
    refuse_stretched(file.vectors, file.path)
    genes, notes = _find_genes(file, annotation)
    ids, first, codes = np.unique([gene.id for gene in genes], return_index=True, return_inverse=True)
    if len(ids) < len(genes):
        notes += (f"{len(genes) - len(ids):,} keys name a gene that another key names, too; the mean is taken",)
    chosen = [genes[row] for row in first.tolist()]
    table = GeneTable.from_rows(
        species=species,
        encoder=encoder,
        ids=ids,
        symbols=[gene.symbol for gene in chosen],
        synonyms=["|".join(gene.aliases) for gene in chosen],
        chromosomes=[gene.chromosome for gene in chosen],
        starts=[gene.start for gene in chosen],
        origins=np.full(len(ids), "imported"),
        vectors=grouped_means(file.vectors, codes),
        metadata={"pooling": "made elsewhere", **file.facts, **(metadata or {})},
    )
    return table, notes


def _find_genes(file: VectorFile, annotation: Annotation | None) -> tuple[list[Gene], tuple[str, ...]]:
    """The gene of every key, one without a place where the annotation has none; notes."""
    named = file.symbols or ("",) * len(file.keys)
    own = [unplaced_gene(key, symbol) for key, symbol in zip(file.keys, named, strict=True)]
    if annotation is None:
        return own, (*file.notes, "no annotation was given: no gene has a place")
    found = max(_readings(file, annotation), key=lambda genes: sum(gene is not None for gene in genes))
    notes = check_overlap(
        [key for key, gene in zip(file.keys, found, strict=True) if gene is None],
        len(file.keys),
        what="keys",
        file=str(file.path),
        other=annotation.file,
        examples=annotation.genes,
    )
    return [gene or other for gene, other in zip(found, own, strict=True)], (*file.notes, *notes)


def _readings(file: VectorFile, annotation: Annotation) -> list[list[Gene | None]]:
    """The genes that the keys name if they are ids, if they are symbols, and by the symbols beside them."""
    symbols = _by_symbol(annotation)

    def find(name: str) -> Gene | None:
        gene = symbols.get(name, symbols.get(name.upper()))
        return gene or (annotation.find(name) if name else None)

    by_id = [annotation.find(key) for key in file.keys]
    return [by_id, *([find(name) for name in names] for names in (file.keys, file.symbols) if names)]


def _by_symbol(annotation: Annotation) -> dict[str, Gene]:
    """Coding genes by the symbol that they alone have, and by its upper case, in which published programs write it."""
    coding = [gene for gene in annotation.genes.values() if is_coding(gene)]
    return sole_owners((gene.symbol.upper(), gene) for gene in coding) | sole_owners((g.symbol, g) for g in coding)
