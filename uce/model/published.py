"""The published files (Rosen et al. 2023) turned into a model folder and one gene table per species.

The published table of tokens has four special rows, the genes species by species (row = the species' offset + position
of the symbol among the keys of its dictionary), and from row 143,574 on one row per chromosome of any species. Here the
genes go into gene tables, and the rest into the model folder with names instead of row numbers.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uce.cells.sentences import SentenceRule
from uce.errors import ModelError, OutputExistsError
from uce.files import make_folder, refuse_overwrite, sha256_file, shorten, user_folder
from uce.genes.catalogue import canonical_species, catalogue, find_species
from uce.genes.kinds import PUBLISHED_ENCODER
from uce.genes.sources import (
    Lookup,
    Places,
    find_vectors,
    read_offsets,
    read_places,
    read_tensors,
    read_vectors,
)
from uce.genes.tables import GeneTable, read_table, table_record, write_table
from uce.model.checkpoint import save_model
from uce.model.weights import TOKENS, published_encoder, read_state

GENE_ROWS = 143_574  # four specials and the genes of eight species; chromosomes follow
CHROMOSOME_ROWS = 1_895
_CHROMOSOME_SEED = 23  # of torch's generator, for a table of tokens published without chromosome rows
ENCODERS: dict[Lookup, str] = {"aligned": PUBLISHED_ENCODER, "published": f"{PUBLISHED_ENCODER}+shifted"}


def import_published(
    weights: Path,
    *,
    chromosomes: Path,
    offsets: Path,
    proteins: Path,
    name: str,
    tokens: Path | None = None,
    models: Path | None = None,
    genes: Path | None = None,
    species: Sequence[str] | None = None,
    lookup: Lookup = "aligned",
    heads: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a model folder and gene tables from the published files. No code in them is run.

    Parameters
    ----------
    weights
        The state dict (`4layer_model.torch`, `33l_8ep_1024t_1280.torch`).
    chromosomes, offsets
        `species_chrom.csv` (or `.csv.gz`) and `species_offsets.pkl` (or `.json`).
    proteins
        Folder of `*.gene_symbol_to_embedding_ESM2.pt`; the order of their keys gives every gene its row.
    name
        Name of the model.
    tokens
        `all_tokens.torch`. Needed only where the weights lack the whole table of tokens; else theirs wins, as it does
        in the published program.
    models, genes
        Where to write: the model to `models/name`, tables to `genes/<kind of vectors>/<species>.h5ad`. None: the
        user's folder, where models and tables are looked up.
    species
        Write tables of these only. None: of all that have an offset.
    lookup
        How genes get their place: "aligned", or "published" with the published program's shift behind symbols that are
        listed twice. The shift depends on the order of the genes asked for; a table can only hold it for one, that of
        the dictionary. Tables of the two look-ups have different kinds of vectors, so that they cannot be mixed up.
    heads
        Attention heads, which no weight shows. None: one per 64 of width, as published.
    overwrite
        Replace a model, and tables that differ.

    Returns
    -------
    The model folder.

    Raises
    ------
    ModelError
        A file is missing, damaged, hostile, or does not fit the others.
    OutputExistsError
        The model, or another table, is there already.
    """
    folder = refuse_overwrite((models or user_folder() / "models") / name, overwrite=overwrite)
    state = read_state(weights)
    encoder = published_encoder(state, path=weights, heads=heads)
    config = encoder.config
    table = _token_table(state, tokens, width=config.protein_dim, place=weights)
    starts = read_offsets(offsets)
    blocks = _blocks(starts, offsets)
    places = _read_all_places(chromosomes, starts)
    wanted = _wanted(species, blocks)
    files = find_vectors(proteins)
    if lacking := [latin for latin in wanted if latin not in files]:
        msg = f"{proteins}: no vectors of {shorten(lacking)}. Add their files, or name the species to import."
        raise ModelError(msg)
    home = (genes or user_folder() / "genes") / ENCODERS[lookup]
    # One species at a time: at the published width each is up to half a gigabyte.
    written = [
        _write(_gene_table(wanted[latin], files[latin], table, places, lookup), home, overwrite=overwrite)
        for latin in wanted
    ]
    make_folder(folder.parent)
    return save_model(
        folder,
        encoder=encoder,
        rule=SentenceRule(draws=1024, max_tokens=min(1536, config.max_tokens)),
        specials=table[:4].numpy(),
        gene_encoder=ENCODERS[lookup],
        gene_tables=written,
        info=_info(weights, lookup),
        chromosome_vectors=_chromosome_vectors(table, places),
        overwrite=overwrite,
    )


@dataclass(frozen=True)
class _Block:
    """The rows of one species in the table of tokens."""

    species: str  # as the published program calls it
    first: int
    end: int


def _token_table(state: Mapping[str, Tensor], tokens: Path | None, *, width: int, place: Path) -> Tensor:
    """(145,469, width): the weights' own table, else that of `tokens`, chromosome rows appended where it has none."""
    rows = GENE_ROWS + CHROMOSOME_ROWS
    table = state.get(TOKENS)
    if table is None or len(table) != rows:
        if tokens is None:
            found = "no table of tokens" if table is None else f"a table of {len(table):,} tokens, not {rows:,}"
            msg = f"{place}: {found}. Give all_tokens.torch as well."
            raise ModelError(msg)
        table, place = read_tensors(tokens), tokens
        if torch.is_tensor(table) and len(table) == GENE_ROWS:
            table = torch.cat([table, random_chromosomes(width)])
    if not torch.is_tensor(table) or table.shape != (rows, width):
        found = str(tuple(table.shape)) if torch.is_tensor(table) else type(table).__name__
        msg = f"{place}: a table of tokens of {found}; ({rows}, {width}) is needed. Download it again."
        raise ModelError(msg)
    return table.float()


def random_chromosomes(width: int) -> Tensor:
    """(1895, width): the rows the published program draws for a table of tokens that ends with the genes."""
    generator = torch.Generator().manual_seed(_CHROMOSOME_SEED)
    return torch.normal(mean=0.0, std=1.0, size=(CHROMOSOME_ROWS, width), generator=generator)


def _read_all_places(path: Path, species: Collection[str]) -> Places:
    places = read_places(path)
    if len(places.codes) != CHROMOSOME_ROWS or {species for species, _ in places.codes} != set(species):
        msg = (
            f"{path}: {len(places.codes):,} chromosomes; the published file "
            f"has {CHROMOSOME_ROWS:,} of the {len(species)} species with an offset. Download it again."
        )
        raise ModelError(msg)
    return places


def _blocks(offsets: Mapping[str, int], path: Path) -> dict[str, _Block]:
    """Rows of each species by its latin name."""
    ordered = sorted(offsets, key=offsets.__getitem__)
    bounds = [*(offsets[species] for species in ordered), GENE_ROWS]
    if (
        any(not find_species(species) for species in ordered)
        or bounds[0] != 4
        or any(first >= end for first, end in pairwise(bounds))
    ):
        found = shorten([f"{species} {offsets[species]}" for species in ordered])
        msg = (
            f"{path}: {found}; not the offsets of the published table, from 4 to below {GENE_ROWS}. Download it again."
        )
        raise ModelError(msg)
    return {
        canonical_species(species): _Block(species, first, end)
        for species, (first, end) in zip(ordered, pairwise(bounds), strict=True)
    }


def _wanted(species: Sequence[str] | None, blocks: Mapping[str, _Block]) -> dict[str, _Block]:
    if species is None:
        return dict(blocks)
    names = [canonical_species(one) for one in species]
    if unknown := [one for one in names if one not in blocks]:
        msg = f"no published genes of {shorten(unknown)}; there are {', '.join(blocks)}."
        raise ModelError(msg)
    return {one: blocks[one] for one in names}


def _gene_table(block: _Block, path: Path, table: Tensor, places: Places, lookup: Lookup) -> GeneTable:
    vectors = read_vectors(path)
    symbols = list(vectors)
    rows = table[block.first : block.end]
    if len(symbols) != len(rows):
        msg = (
            f"{path}: {len(symbols):,} symbols, the table of tokens has {len(rows):,} rows for {block.species}; "
            "the files are of different releases. Give the published ones."
        )
        raise ModelError(msg)
    _check_order(vectors, rows, path)
    del vectors
    found = places.rows(block.species, symbols, lookup=lookup)
    species = canonical_species(block.species)
    kept = np.flatnonzero(found >= 0)
    names = np.array(symbols)[kept]
    return GeneTable.from_rows(
        species=species,
        encoder=ENCODERS[lookup],
        ids=names,
        symbols=names,
        chromosomes=places.chromosomes[found[kept]],
        starts=places.starts[found[kept]],
        origins=np.full(len(kept), "published"),
        vectors=rows[torch.from_numpy(kept)].numpy(),
        metadata={
            "taxon": catalogue()[species].taxon,
            "lookup": lookup,
            "first_row": block.first,
            "genes_without_place": len(symbols) - len(kept),
            "source": path.name,
        },
    )


def _check_order(vectors: Mapping[str, Tensor], rows: Tensor, path: Path) -> None:
    """Compare directions of some genes in both files: nothing else would tell that the keys are in another order."""
    symbols = list(vectors)
    some = np.unique(np.linspace(0, len(symbols) - 1, 64).astype(np.int64)).tolist()
    ours = torch.stack([vectors[symbols[position]].float() for position in some])
    if ours.shape[1:] != rows.shape[1:]:
        msg = f"{path}: vectors of width {ours.shape[1]}, not {rows.shape[1]} as in the table of tokens."
        raise ModelError(msg)
    likeness = torch.nn.functional.cosine_similarity(ours, rows[some])
    wrong = [symbols[position] for position, cosine in zip(some, likeness.tolist(), strict=True) if not cosine > 0.99]
    if wrong:
        msg = f"{path}: {shorten(wrong)}: other vectors than in the table of tokens. Its keys are in another order."
        raise ModelError(msg)


def _write(table: GeneTable, home: Path, *, overwrite: bool) -> dict[str, Any]:
    """Write a table unless the same one is there, and return its line of genes.json."""
    path = home / f"{table.species}.h5ad"
    make_folder(home)
    if path.exists() and not overwrite and read_table(path).sha256 != table.sha256:
        msg = f"{path} exists and differs. Move it away first."
        raise OutputExistsError(msg)
    if not path.exists() or overwrite:
        write_table(table, path)
    return table_record(table)


def _chromosome_vectors(table: Tensor, places: Places) -> dict[str, NDArray[np.float32]]:
    rows = table[GENE_ROWS:].numpy()
    return {
        f"{canonical_species(species)}:{chromosome}": rows[code] for (species, chromosome), code in places.codes.items()
    }


def _info(weights: Path, lookup: Lookup) -> dict[str, Any]:
    return {
        "summary": "Weights published by others (Rosen et al. 2023, bioRxiv 2023.11.28.568918), imported.",
        "training": "By its authors; see the paper.",
        "source": {"file": weights.name, "sha256": sha256_file(weights)},
        "gene_places": f"Look-up: {lookup}.",
    }
