"""An embedding job: an opened source, a model, and what ties them; the plan before, the record and the health after."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import vstack

import uce
from uce.cells.counts import Counts, Policy, open_counts
from uce.cells.matching import match_species
from uce.cells.parts import BLOCK_CELLS, Block, Parts, block_ranges
from uce.engines import Reader, Settings, embed_rows, prepare_readers, stream_blocks
from uce.errors import InputError, UsageError
from uce.genes.resolver import MIN_SHARE
from uce.health import Health, examine
from uce.model.checkpoint import Model, load_model
from uce.progress import Progress, say

SAMPLE_CELLS = 2000
_DRAWN_TWICE = 64  # cells at most: their noise is within 10 % of all cells' then; that of 8 cells within 30 %


@dataclass(frozen=True)
class Job:
    """An opened source and everything needed to embed any row of it."""

    counts: Counts
    model: Model
    readers: dict[str, Reader]
    species: npt.NDArray[np.str_]
    settings: Settings
    counts_policy: str
    species_key: str | None
    fingerprint: str

    @property
    def shape(self) -> tuple[int, int]:
        """(cells, dim) of the result."""
        return self.counts.n_cells, self.model.config.out_dim


@dataclass(frozen=True)
class Request:
    """Which file, which model and how: from these plain values any process on any machine opens the same job."""

    source: Path
    model: str | Path | Model
    settings: Settings
    species: str | None = None
    species_key: str | None = None
    gene_column: str | None = None
    min_coverage: float = MIN_SHARE
    layer: str | None = None
    use_raw: bool = False
    counts_policy: Policy = "invert"
    genome: str | None = None

    @contextmanager
    def open(self) -> Iterator[Job]:
        """The job, its file open until the end of the block.

        Raises
        ------
        UsageError, InputError, ModelError
            Naming what does not fit.
        """
        with open_counts(
            self.source, layer=self.layer, use_raw=self.use_raw, policy=self.counts_policy, genome=self.genome
        ) as counts:
            yield prepare_job(
                counts,
                self.model,
                self.settings,
                counts_policy=self.counts_policy,
                species=self.species,
                species_key=self.species_key,
                gene_column=self.gene_column,
                min_coverage=self.min_coverage,
            )


def prepare_job(
    counts: Counts,
    model: str | Path | Model,
    settings: Settings,
    *,
    counts_policy: str,
    species: str | None,
    species_key: str | None,
    gene_column: str | None,
    min_coverage: float = MIN_SHARE,
) -> Job:
    """Load the model, find the species and the genes, and project the vocabulary: all that can fail before the work.

    Raises
    ------
    UsageError, InputError, ModelError
        Naming what does not fit.
    """
    if species is not None and species_key is not None:
        msg = f"--species {species} and --species-key {species_key} exclude each other. Give one of them."
        raise UsageError(msg)
    if not 0 <= min_coverage <= 1:
        msg = f"--min-coverage {min_coverage}: must be a share of the counts from 0 to 1."
        raise UsageError(msg)
    loaded = model if isinstance(model, Model) else load_model(model)
    matches, labels = match_species(
        counts,
        species=species,
        species_key=species_key,
        gene_column=gene_column,
        encoder=loaded.gene_encoder,
        min_coverage=min_coverage,
    )
    readers = prepare_readers(loaded, matches, settings)
    if loaded is not model:  # nobody else has it: what was exchanged for faster parts need not stay in memory
        loaded = replace(loaded, encoder=next(iter(readers.values())).encoder)
        readers = {name: replace(reader, model=loaded) for name, reader in readers.items()}
    settings = next(iter(readers.values())).settings  # in which the precision is settled
    return Job(counts, loaded, readers, labels, settings, counts_policy, species_key, counts.fingerprint())


def plan_of(job: Job) -> dict[str, Any]:
    """Everything that decides the numbers, and nothing else: no clock, no path, no batch size."""
    settings, rule = job.settings, job.model.rule
    return {
        "version": uce.__version__,
        "model": job.model.name,
        "model_sha256": job.model.sha256,
        "gene_vectors": job.model.gene_encoder,
        "species": {name: reader.match.table.sha256 for name, reader in job.readers.items()},
        "species_key": job.species_key or "",
        "gene_column": {name: reader.match.resolution.column for name, reader in job.readers.items()},
        "counts_slot": job.counts.slot,
        "counts_policy": job.counts_policy,
        "input": job.fingerprint,
        "cells": job.counts.n_cells,
        "seed": settings.seed,
        "replicates": settings.replicates,
        "precision": settings.precision,
        "device": settings.device.type,
        "draws": rule.draws,
        "max_tokens": rule.max_tokens,
        "block_cells": BLOCK_CELLS,
        **({"cycles": settings.cycles or job.model.config.cycles} if job.model.config.kind == "recursive" else {}),
    }


def say_notes(job: Job, *, quiet: bool) -> None:
    """Print what was found in the file: the counts, the species and how it was recognised, the genes."""
    for note in job.counts.notes:
        say(note, quiet=quiet)
    for reader in job.readers.values():
        say(reader.match.sentence(), quiet=quiet)
        for warning in reader.match.warnings:
            say(f"warning: {warning}", quiet=quiet)


def fill(job: Job, parts: Parts, numbers: Iterable[int], *, num_workers: int = 1, quiet: bool = True) -> None:
    """Compute those of the blocks `numbers` that are not finished; done twice, a block has the same bytes."""
    every = block_ranges(job.counts.n_cells)
    missing = parts.missing(numbers)
    ranges = [every[number] for number in missing]
    cells = sum(stop - start for start, stop in ranges)
    stream = stream_blocks(job.counts, job.readers, job.species, ranges, num_workers=num_workers)
    # Closed even when interrupted, so that no thread still reads from a file that is closed next.
    with Progress("embedding", cells, unit="cells", quiet=quiet) as progress, closing(stream) as blocks:
        for number, block in zip(missing, blocks, strict=True):
            parts.write(number, block)
            progress.advance(len(block.vectors))


def refuse_changed(job: Job) -> None:
    """Refuse a source that is not what it was when the job was prepared.

    Raises
    ------
    InputError
        Its content has changed.
    """
    if job.counts.fingerprint() != job.fingerprint:
        msg = f"{job.counts.file}: changed while it was being read. Run again on a file that stays as it is."
        raise InputError(msg)


def make_record(job: Job, blocks: list[Block], health: Health) -> dict[str, Any]:
    """The provenance record: the plan, what was found in the file, and how the result looks."""
    facts = plan_of(job)
    del facts["block_cells"]
    facts["species_reason"] = {name: reader.match.reason for name, reader in job.readers.items()}
    facts["genes"] = {name: reader.match.report for name, reader in job.readers.items()}
    facts["cells_without_vector"] = int(sum((block.genes == 0).sum() for block in blocks))
    facts["draws_left_out"] = int(sum(block.left_out.sum() for block in blocks))
    facts["notes"] = list(job.counts.notes)
    facts["health"] = health.to_dict()
    return facts


def thinned(block: Block, cells: int) -> Block:
    """`block`, of a file of so many cells, with the vectors of only as many as `examine_blocks` needs."""
    return replace(block, vectors=block.vectors[:: _step(cells)].copy())


def examine_blocks(job: Job, blocks: list[Block]) -> Health:
    """The health of a finished job, from its blocks, thinned."""
    cells = job.counts.n_cells
    rows = np.concatenate([np.arange(*span, _step(cells)) for span in block_ranges(cells)] or [np.zeros(0, np.int64)])
    vectors = np.concatenate([block.vectors for block in blocks] or [np.zeros((0, job.shape[1]), np.float32)])
    there = ~np.isnan(vectors[:, 0])
    rows, vectors = rows[there], vectors[there]
    total = sum(float(block.total.sum()) for block in blocks)
    return examine(
        vectors[:: max(1, len(vectors) // SAMPLE_CELLS)],
        genes_covered=float(np.mean([reader.match.genes_covered for reader in job.readers.values()])),
        counts_covered=sum(float(block.covered.sum()) for block in blocks) / total if total else float("nan"),
        cells=cells,
        cells_without_vector=int(sum((block.genes == 0).sum() for block in blocks)),
        draws=_two_draws(job, rows, vectors),
    )


def _step(cells: int) -> int:
    return max(1, cells // SAMPLE_CELLS)


def _two_draws(
    job: Job, rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Vectors of a few cells from all over the file, and those of a second, independent set of draws."""
    few = min(len(rows), max(_DRAWN_TWICE // 8, min(_DRAWN_TWICE, len(rows) // 32)))
    chosen = np.unique(np.linspace(0, len(rows) - 1, num=few).astype(np.int64))
    if not len(chosen):
        return vectors, vectors
    counts = vstack([job.counts.read(row, row + 1) for row in rows[chosen].tolist()], format="csr")
    species = job.species[rows[chosen]] if len(job.readers) > 1 else job.species[:0]
    second = embed_rows(counts, job.readers, species, first_replicate=job.settings.replicates).vectors
    return vectors[chosen], second
