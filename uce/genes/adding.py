"""A species is added: its proteins, its orthologues or vectors made elsewhere become a judged gene table."""

from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uce.devices import rank_and_world
from uce.errors import InputError, ModelError, OutputExistsError, UsageError
from uce.files import make_folder
from uce.genes.annotations.reading import Annotation, read_annotation
from uce.genes.bundled import bundled_species
from uce.genes.catalogue import canonical_species, find_species, species_label
from uce.genes.collection import comparable, kind_width, list_species, load_gene_table, table_path
from uce.genes.judging.health import TableHealth, judge_table
from uce.genes.judging.pictures import draw_table
from uce.genes.kinds import BUNDLED_ENCODER, PUBLISHED_ENCODER, plain_kind
from uce.genes.names import UNLISTED, split_id
from uce.genes.orthologs import Orthologs, borrow, orthologs_by_symbol, read_orthologs, table_from_orthologs
from uce.genes.proteins.run import remove
from uce.genes.proteins.weights import find_weights, read_weights
from uce.genes.requests import Making, Sources, checked_taxon, kind_of
from uce.genes.sources import published_chromosome_vectors
from uce.genes.tables import UNPLACED, GeneTable, read_facts, write_table
from uce.genes.vector_files import read_vector_file, table_from_vector_file
from uce.locks import lock
from uce.progress import say

if TYPE_CHECKING:
    from uce.genes.proteins.estimate import Estimate
    from uce.genes.proteins.sequences import Proteome

_LARGE = 2_000_000_000  # parameters of a protein encoder from which on the cost is said before any work


@dataclass(frozen=True)
class Added:
    """A table that was added: where it is, its health, its picture, and what to know about its making."""

    table: GeneTable
    path: Path
    health: TableHealth
    picture: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Order:
    """All that a table is made of, checked."""

    species: str
    kind: str
    sources: Sources
    making: Making
    encoder: str
    facts: dict[str, str | int | float]
    annotation: Annotation | None
    parts: Path
    quiet: bool


Made = tuple[GeneTable, tuple[str, ...]]  # with notes for the user


def add_species(
    name: str,
    sources: Sources,
    *,
    taxon: int | None = None,
    encoder: str | None = None,
    making: Making | None = None,
    resume: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
) -> Added | None:
    """Make a gene table, judge it, and put it where `load_gene_table` finds it.

    Parameters
    ----------
    name
        Latin name of the species, or any that the catalogue knows.
    taxon
        NCBI taxonomy id; may be left out where the catalogue knows the species.
    encoder
        With proteins: name or file of an ESM2. With vectors made elsewhere: what made them. Orthologues alone give
        vectors of the kind of their table, the bundled one where this is left out.
    resume
        Go on with the proteins that an interrupted run has finished; false drops them.
    overwrite
        Replace a table of this species and kind.

    Returns
    -------
    What was added; None in a process that a launcher started beside the first.

    Raises
    ------
    UsageError, InputError, ModelError, OutputExistsError, StorageError
        Nothing is added then. What a run that was cut short has finished is kept.
    """
    species, kind = canonical_species(name, new=True), kind_of(sources, encoder)
    facts: dict[str, str | int | float] = {"taxon": checked_taxon(species, taxon)}
    path = table_path(species, kind)
    rank, world = rank_and_world()
    if world > 1 and not (resume and sources.fasta):
        msg = "several processes share only the work on proteins: --fasta is needed, and --no-resume is not possible."
        raise UsageError(msg)
    if rank > 0 and path.exists() and not overwrite:  # the others were quicker
        return None
    _refuse_existing(path, species, kind, overwrite=overwrite)
    facts |= sources.record()
    annotation = read_annotation(sources.annotation) if sources.annotation else None
    make_folder(path.parent)
    parts = path.with_name(f"{species}.parts")
    making = making or Making()
    order = _Order(species, kind, sources, making, encoder or "", facts, annotation, parts, quiet)
    try:
        with lock(path.with_name(path.name + ".lock"), wait=False) if rank == 0 else nullcontext():
            if rank == 0:
                _refuse_existing(path, species, kind, overwrite=overwrite)  # another run may have finished since
            if not resume:
                remove(parts)
            made = _make(order)
            if made is None:
                return None
            added = _install(_with_chromosomes(made[0]), path, (*(annotation.notes if annotation else ()), *made[1]))
            remove(parts)
            return added
    finally:
        with suppress(OSError):  # it is not empty, unless nothing came of this
            path.parent.rmdir()


def estimate_species(
    name: str, sources: Sources, encoder: str | None, making: Making, *, taxon: int | None = None
) -> "Estimate":
    """What it costs to embed the proteins of `sources` on this machine, from a measured sample; see `estimate`.

    Raises
    ------
    UsageError
        There are no proteins, or no encoder; or the species is not one.
    """
    checked_taxon(canonical_species(name, new=True), taxon)
    if not sources.fasta or not encoder:
        msg = "--dry-run estimates the work of --encoder on the proteins of --fasta; give both."
        raise UsageError(msg)
    annotation = read_annotation(sources.annotation) if sources.annotation else None
    proteome, _ = _read_proteins(sources, annotation)
    return _estimate(proteome, encoder, making)


def _make(order: _Order) -> Made | None:
    """The table, or None in a process beside the first."""
    sources = order.sources
    if not sources.relatives:
        return _own(order)
    orthologs, relative = _relatives(order)  # before the hours that proteins may take
    if not (sources.fasta or sources.embeddings):
        return table_from_orthologs(order.annotation, orthologs, relative, species=order.species, metadata=order.facts)
    made = _own(order)
    if made is None:
        return None
    table, notes = borrow(made[0], order.annotation, orthologs, relative)
    return table, (*made[1], *notes)


def _own(order: _Order) -> Made | None:
    return _from_proteins(order) if order.sources.fasta else _from_vectors(order)


def _from_proteins(order: _Order) -> Made | None:
    from uce.genes.proteins.build import table_from_vectors
    from uce.genes.proteins.esm2 import load_esm2
    from uce.genes.proteins.run import embed_proteome

    making = order.making
    proteome, notes = _read_proteins(order.sources, order.annotation)
    _refuse_other_species(proteome, order)
    if left_out := sum(proteome.dropped.values()):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(proteome.dropped.items()))
        notes = (*notes, f"{left_out:,} proteins are left out ({reasons})")
    if proteome.taxon not in (None, order.facts["taxon"]):
        notes = (*notes, f"the headers name taxon {proteome.taxon}, the table is of {order.facts['taxon']}")
    weights = find_weights(order.encoder)
    large = read_weights(weights)[1].linear_parameters >= _LARGE
    if large and not order.quiet and rank_and_world()[0] == 0:
        say(_estimate(proteome, order.encoder, making))
    encoder = load_esm2(weights, device=making.device, precision=making.precision)
    _refuse_other_weights(order, encoder.sha256)
    vectors = embed_proteome(
        encoder,
        [protein.sequence for protein in proteome.proteins],
        order.parts,
        batch_tokens=making.batch_tokens,
        long_proteins=making.long_proteins,
        quiet=order.quiet,
    )
    if vectors is None:
        return None
    facts = {
        **order.facts,
        "assembly": proteome.assembly,
        "encoder_sha256": encoder.sha256,
        "precision": encoder.precision,
        "pooling": "mean over residues of the last layer",
        "long_proteins": making.long_proteins,
        **{f"dropped_{reason.replace(' ', '_')}": count for reason, count in proteome.dropped.items()},
    }
    table = table_from_vectors(
        proteome.proteins,
        vectors,
        species=order.species,
        encoder=order.kind,
        isoforms=making.isoforms,
        metadata=facts,
    )
    return table, notes


def _from_vectors(order: _Order) -> Made:
    file = read_vector_file(order.sources.embeddings or "")
    width, found = kind_width(order.kind), file.vectors.shape[1]
    if width not in (None, found):
        msg = (
            f"{file.path}: vectors {found:,} wide; those of {order.kind} are {width:,} wide. "
            "Give as --encoder the name of what made these."
        )
        raise ModelError(msg)
    return table_from_vector_file(
        file, species=order.species, encoder=order.kind, annotation=order.annotation, metadata=order.facts
    )


def _relatives(order: _Order) -> tuple[Orthologs, GeneTable]:
    sources, annotation = order.sources, order.annotation
    relative = load_gene_table(sources.relative, encoder=order.kind)
    if sources.orthologs:
        return read_orthologs(sources.orthologs), relative
    if annotation is None:  # `Sources` has refused it
        raise AssertionError
    return orthologs_by_symbol(annotation, relative), relative


def _read_proteins(sources: Sources, annotation: Annotation | None) -> tuple["Proteome", tuple[str, ...]]:
    from uce.genes.proteins.gene_map import read_gene_map
    from uce.genes.proteins.sequences import place_proteins, read_proteome

    gene_map = read_gene_map(sources.gene_map) if sources.gene_map else None
    proteome = read_proteome(sources.fasta or "", gene_map=gene_map)
    return place_proteins(proteome, annotation)


def _estimate(proteome: "Proteome", encoder: str, making: Making) -> "Estimate":
    from uce.genes.proteins.estimate import estimate

    return estimate(
        encoder,
        [len(sequence) for sequence in sorted({protein.sequence for protein in proteome.proteins})],
        device=making.device,
        precision=making.precision,
        batch_tokens=making.batch_tokens,
        long_proteins=making.long_proteins,
        genes=len({protein.gene or protein.symbol for protein in proteome.proteins}),
    )


def _refuse_existing(path: Path, species: str, kind: str, *, overwrite: bool) -> None:
    bundled = kind == BUNDLED_ENCODER and species in bundled_species()
    if (path.exists() or bundled) and not overwrite:
        where = path if path.exists() else "bundled"
        msg = (
            f"there is a gene table of {species_label(species)} with {kind} vectors already ({where}). "
            "Pass --overwrite to use another instead."
        )
        raise OutputExistsError(msg)


def _refuse_other_species(proteome: "Proteome", order: _Order) -> None:
    """Organisms of headers and stable ids say whose proteins they are."""
    named = find_species(str(proteome.taxon))
    if named not in (None, order.species):
        msg = (
            f"{order.sources.fasta}: the headers name {species_label(str(named))}; --name says "
            f"{species_label(order.species)}. Correct one of them."
        )
        raise InputError(msg)
    owners = Counter(split_id(protein.gene)[0] for protein in proteome.proteins)
    owner, count = owners.most_common(1)[0]
    if owner not in ("", UNLISTED, order.species) and count > len(proteome.proteins) / 2:
        example = next(protein.gene for protein in proteome.proteins if split_id(protein.gene)[0] == owner)
        msg = (
            f"{order.sources.fasta}: {count:,} of {len(proteome.proteins):,} proteins are of "
            f"{species_label(owner)} ({example}); --name says {species_label(order.species)}. Correct one of them."
        )
        raise InputError(msg)


def _refuse_other_weights(order: _Order, sha256: str) -> None:
    """All tables of a kind are made by the same weights: vectors of others would be noise beside them."""
    for name in list_species(encoder=order.kind):
        path = table_path(name, order.kind)
        if name == order.species or not path.is_file():
            continue
        there = str(read_facts(path).get("encoder_sha256", sha256))
        if there != sha256:
            msg = (
                f"{path}: was made by weights {there[:12]}.., {order.encoder} has {sha256[:12]}... Give the same file, "
                "or rename this one: vectors of the two do not fit together."
            )
            raise ModelError(msg)


def _with_chromosomes(table: GeneTable) -> GeneTable:
    """With tokens of chromosomes as the published program would draw them, where the published checkpoints read it.

    Its rule knows the chromosomes of genes with a symbol only; any other is drawn by name, as everywhere here.
    """
    if plain_kind(table.encoder) != PUBLISHED_ENCODER:
        return table
    placed = (table.chromosomes != UNPLACED) & (table.symbols != "")
    names = np.unique(table.chromosomes[placed]).tolist()
    vectors = published_chromosome_vectors(int(table.metadata["taxon"]), names, table.species, table.dim)
    return replace(table, chromosome_vectors=vectors)


def _install(table: GeneTable, path: Path, notes: tuple[str, ...]) -> Added:
    others = comparable(table)
    health = judge_table(table, against=others)
    table = replace(table, metadata={**table.metadata, "health": health.verdict})
    picture = path.with_suffix(".png")
    write_table(table, path)
    draw_table(table, health, picture, against=others)
    return Added(table, path, health, picture, notes)
