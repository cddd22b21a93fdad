"""Proteins with their vectors become a gene table; embedding a proteome goes on where a killed run stopped."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uce.errors import InputError, OutputExistsError
from uce.files import atomic_path, sha256_arrays, write_json
from uce.genes.proteins.esm2 import ProteinEncoder, embed_sequences
from uce.genes.proteins.sequences import Protein, Proteome, place_order
from uce.genes.tables import UNPLACED, GeneTable

PART_PROTEINS = 64

Isoforms = Literal["mean", "longest"]


def build_table(
    proteome: Proteome,
    encoder: ProteinEncoder,
    parts: str | Path,
    *,
    species: str,
    places: Mapping[str, tuple[str, int]] | None = None,
    isoforms: Isoforms = "mean",
    long_proteins: Literal["truncate", "window"] = "truncate",
    batch_tokens: int = 4096,
    metadata: Mapping[str, str | int | float] | None = None,
    progress: bool = True,
) -> GeneTable:
    """Embed a proteome and make a gene table of it.

    Parameters
    ----------
    parts
        Folder for finished parts, created where missing; the same call after a kill goes on from it. Remove it when
        the table is written.
    places
        Gene id or symbol to (chromosome, first base), which win over those in the headers.
    isoforms
        How the proteins of a gene become one vector, see `table_from_vectors`.
    long_proteins, batch_tokens
        See `embed_sequences`.
    metadata
        More facts for the table: taxon, assembly, release.

    Raises
    ------
    OutputExistsError
        `parts` holds pieces of other proteins, another encoder or other settings.
    """
    sequences = [protein.sequence for protein in proteome.proteins]
    vectors = embed_in_parts(
        encoder, sequences, parts, batch_tokens=batch_tokens, long_proteins=long_proteins, progress=progress
    )
    facts: dict[str, str | int | float] = {
        "encoder_sha256": encoder.sha256,
        "pooling": "mean over residues of the last layer",
        "long_proteins": long_proteins,
        **{f"dropped_{reason.replace(' ', '_')}": count for reason, count in proteome.dropped.items()},
    }
    return table_from_vectors(
        proteome.proteins,
        vectors,
        species=species,
        encoder=encoder.name,
        places=places,
        isoforms=isoforms,
        metadata={**facts, **(metadata or {})},
    )


def table_from_vectors(
    proteins: Sequence[Protein],
    vectors: ArrayLike,
    *,
    species: str,
    encoder: str,
    places: Mapping[str, tuple[str, int]] | None = None,
    isoforms: Isoforms = "mean",
    metadata: Mapping[str, str | int | float] | None = None,
) -> GeneTable:
    """A gene table from one vector per protein. The order of the proteins does not matter.

    Genes go by their stable id, or by symbol where there is none. `isoforms` is "mean", the plain mean over a gene's
    proteins added in float64 (as SATURN and UCE did it), or "longest" (of equally long ones the first by id).

    Parameters
    ----------
    vectors
        (proteins, dim), finite.

    Raises
    ------
    InputError
        There is not one vector for every protein.
    """
    matrix = np.asarray(vectors)
    if matrix.ndim != 2 or len(matrix) != len(proteins):
        msg = f"vectors of shape {matrix.shape} for {len(proteins)} proteins; one row for every protein is needed."
        raise InputError(msg)
    genes: dict[str, list[int]] = {}
    for row in sorted(range(len(proteins)), key=lambda row: (proteins[row].id, proteins[row].sequence)):
        genes.setdefault(proteins[row].gene or proteins[row].symbol, []).append(row)
    members = [[proteins[row] for row in rows] for rows in genes.values()]
    names = [_symbols(gene) for gene in members]
    spots = [_place(key, gene, places or {}) for key, gene in zip(genes, members, strict=True)]
    return GeneTable.from_rows(
        species=species,
        encoder=encoder,
        ids=list(genes),
        symbols=[found[0] for found in names],
        synonyms=["|".join(found[1:]) for found in names],
        chromosomes=[chromosome for chromosome, _ in spots],
        starts=[start for _, start in spots],
        origins=["protein"] * len(genes),
        vectors=np.stack([_pool(matrix, rows, proteins, isoforms) for rows in genes.values()]),
        metadata={"isoforms": isoforms, "proteins": len(proteins), **(metadata or {})},
    )


def _pool(
    vectors: NDArray[Any], rows: Sequence[int], proteins: Sequence[Protein], isoforms: Isoforms
) -> NDArray[np.float64]:
    if isoforms == "longest":
        rows = [max(rows, key=lambda row: len(proteins[row].sequence))]
    return np.asarray(vectors[rows].mean(axis=0, dtype=np.float64))


def _symbols(gene: Sequence[Protein]) -> list[str]:
    """The symbol most of the gene's proteins have, then the others."""
    counts = Counter(protein.symbol for protein in gene if protein.symbol)
    return sorted(counts, key=lambda symbol: (-counts[symbol], symbol)) or [""]


def _place(key: str, gene: Sequence[Protein], places: Mapping[str, tuple[str, int]]) -> tuple[str, int]:
    for name in (key, *_symbols(gene)):
        if name in places:
            return places[name]
    return min(((protein.chromosome, protein.start) for protein in gene), key=place_order, default=(UNPLACED, 0))


def embed_in_parts(
    encoder: ProteinEncoder,
    sequences: Sequence[str],
    folder: str | Path,
    *,
    batch_tokens: int = 4096,
    long_proteins: Literal["truncate", "window"] = "truncate",
    progress: bool = True,
) -> NDArray[np.float32]:
    """`embed_sequences` with finished parts of 64 proteins kept in `folder`; equal sequences are embedded once.

    The longest proteins come first: a machine they are too much for shows it at once.
    """
    from tqdm import tqdm

    distinct = sorted(set(sequences), key=lambda text: (-len(text), text))
    folder = Path(folder)
    _agree(folder, encoder, distinct, long_proteins)
    found = np.empty((len(distinct), encoder.dim), dtype=np.float32)
    total = sum(map(len, distinct))
    with tqdm(total=total, unit="residue", unit_scale=True, disable=None if progress else True) as bar:
        for number, rows in enumerate(_parts(len(distinct))):
            path, part = folder / f"{number:06d}.npy", distinct[rows]
            vectors = _finished(path, (len(part), encoder.dim))
            if vectors is None:
                vectors = embed_sequences(encoder, part, batch_tokens=batch_tokens, long_proteins=long_proteins)
                with atomic_path(path) as temporary, temporary.open("wb") as stream:
                    np.save(stream, vectors)
            found[rows] = vectors
            bar.update(sum(map(len, part)))
            bar.set_postfix_str(f"{rows.stop:,} of {len(distinct):,} proteins")
    index = {text: row for row, text in enumerate(distinct)}
    return found[[index[text] for text in sequences]]


def _parts(n: int) -> Iterator[slice]:
    for begin in range(0, n, PART_PROTEINS):
        yield slice(begin, min(begin + PART_PROTEINS, n))


def _agree(folder: Path, encoder: ProteinEncoder, distinct: list[str], long_proteins: str) -> None:
    """Record what the parts in `folder` are made of, or compare with what is recorded."""
    plan = {
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "long_proteins": long_proteins,
        "part_proteins": PART_PROTEINS,
        "proteins_sha256": sha256_arrays(np.array(distinct, dtype=object)),
    }
    path = folder / "plan.json"
    if path.exists():
        recorded = json.loads(path.read_text(encoding="utf-8"))
        different = sorted(key for key in plan if recorded.get(key) != plan[key])
        if different:
            key = different[0]
            msg = f"{folder}: holds parts with {key} {recorded.get(key)}, not {plan[key]}. Delete it to start again."
            raise OutputExistsError(msg)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)


def _finished(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The vectors of a part that is whole, else None."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None
