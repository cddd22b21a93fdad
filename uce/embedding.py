"""Cells in, vectors out: `embed` for an AnnData in memory, `embed_file` for files, `embed_counts` for arrays."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, issparse

from uce.cells.counts import Counts, Policy, open_counts
from uce.cells.parts import BLOCK_CELLS, Block, Parts, block_ranges
from uce.devices import pick_device, pick_precision, rank_and_world
from uce.engines import Settings, stream_blocks
from uce.errors import InputError, OutputExistsError, UsageError
from uce.files import check_writable, refuse_overwrite
from uce.genes.resolver import MIN_SHARE
from uce.health import Health
from uce.jobs import SAMPLE_CELLS, Job, examine_blocks, make_record, plan_of, prepare_job, refuse_changed
from uce.locks import lock
from uce.model.checkpoint import Model
from uce.outputs import check_key, obsm_keys, output_path, write_h5ad, write_npy, write_parquet
from uce.progress import Progress, say

if TYPE_CHECKING:
    from anndata import AnnData

DEFAULT_MODEL = "uce-mini"


def embed(
    adata: "AnnData",
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    species: str | None = None,
    species_key: str | None = None,
    gene_column: str | None = None,
    min_coverage: float = MIN_SHARE,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    key_added: str = "X_uce",
    seed: int = 0,
    replicates: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    device: str = "auto",
    num_workers: int = 1,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Write the cell vectors of an AnnData into `adata.obsm[key_added]`, and what made them into `adata.uns["uce"]`.

    Parameters
    ----------
    adata
        Cells with raw counts in a layer, `.raw` or `.X`; nothing else in it is touched.
    model
        A loaded model, a model folder, or the name of an installed one.
    species
        Such as "human" or "mus_musculus". May be left out where the gene names explain one species clearly.
    species_key
        Column of `adata.obs` that names the species of every cell.
    gene_column
        Column of `var` with gene ids or symbols; the best one is found if left out.
    min_coverage
        Share of the counts that must lie in genes of the species' table; cells with less are refused.
    layer, use_raw
        Where the counts are; found if left out.
    counts_policy
        What to do with values that are not whole: `strict` refuses, `invert` (default) undoes an exact log1p, `round`
        rounds, `as-is` takes them.
    key_added
        Name of the result in `obsm`.
    seed, replicates
        The draw of genes; vectors of several replicates are averaged.
    batch_size, precision, device, num_workers
        How to compute. They do not change the numbers beyond rounding.
    overwrite
        Replace an `obsm[key_added]` that is there.
    quiet
        No progress and no notes on stderr.

    Raises
    ------
    InputError
        The cells cannot be embedded as they are; the message names the value and the way out.
    OutputExistsError
        `adata.obsm[key_added]` exists and `overwrite` is false.

    Examples
    --------
    >>> import scanpy as sc, uce
    >>> adata = sc.datasets.pbmc68k_reduced()                 # doctest: +SKIP
    >>> uce.embed(adata, species="human")                     # doctest: +SKIP
    >>> sc.pp.neighbors(adata, use_rep="X_uce")               # doctest: +SKIP
    """
    check_key(key_added)
    if key_added in adata.obsm and not overwrite:
        msg = f"obsm[{key_added!r}] exists. Choose another key_added, or pass overwrite=True."
        raise OutputExistsError(msg)
    settings = _settings(seed, replicates, batch_size, precision, device)
    with open_counts(adata, layer=layer, use_raw=use_raw, policy=counts_policy) as counts:
        job = prepare_job(
            counts,
            model,
            settings,
            species=species,
            species_key=species_key,
            gene_column=gene_column,
            min_coverage=min_coverage,
            counts_policy=counts_policy,
        )
        say_notes(job, quiet=quiet)
        blocks = list(_computed(job, num_workers=num_workers, quiet=quiet))
        vectors = np.concatenate([block.vectors for block in blocks] or [np.zeros(job.shape, np.float32)])
        health = examine_blocks(job, blocks)
    say(health, quiet=quiet)
    adata.obsm[key_added] = vectors
    records = dict(adata.uns.get("uce", {}))
    records[key_added] = make_record(job, blocks, health)
    adata.uns["uce"] = records


def embed_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    species: str | None = None,
    species_key: str | None = None,
    gene_column: str | None = None,
    min_coverage: float = MIN_SHARE,
    layer: str | None = None,
    use_raw: bool = False,
    counts_policy: Policy = "invert",
    genome: str | None = None,
    key_added: str = "X_uce",
    seed: int = 0,
    replicates: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    device: str = "auto",
    num_workers: int = 1,
    file_format: str = "h5ad",
    overwrite: bool = False,
    inplace: bool = False,
    resume: bool = True,
    quiet: bool = False,
) -> "Outcome":
    """Embed a file of any size; memory does not grow with its cells, and a run that was cut short goes on where it was.

    Parameters beyond those of :func:`embed`:

    Parameters
    ----------
    source
        `.h5ad`, AnnData `.zarr` folder or `.zarr.zip`, 10x `.h5`, or a 10x matrix folder.
    output
        Path of the result; `INPUT.uce.h5ad` in the current folder if left out.
    genome
        Which genome of a 10x file that holds several.
    file_format
        `h5ad` (the input with one more `obsm`), `npy` or `parquet`.
    overwrite
        Replace an output, or an `obsm` of the same key, that is there.
    inplace
        Add the result to the input `.h5ad` itself, through a copy that then takes its name.
    resume
        Go on with the finished blocks of an earlier run of the same plan; false drops them.

    Returns
    -------
    Outcome
        With the path, the health line and the provenance record.

    Raises
    ------
    InputError, ModelError, UsageError, OutputExistsError, StorageError
        Each before any long work where it can be known; see `uce.errors`.
    """
    check_key(key_added)
    path = output_path(source, output, file_format, inplace=inplace)
    rank, world = rank_and_world()
    if not inplace and rank == 0:
        refuse_overwrite(path, overwrite=overwrite)
    if file_format == "h5ad" and not overwrite and key_added in obsm_keys(Path(source)):
        msg = f"{source}: obsm[{key_added!r}] exists. Choose another --key-added, or pass --overwrite."
        raise OutputExistsError(msg)
    if world > 1 and not resume:
        msg = f"--no-resume: not under a launcher, where other ranks may be ahead. Delete {path}.parts instead."
        raise UsageError(msg)
    settings = _settings(seed, replicates, batch_size, precision, device)
    started = time.monotonic()
    with open_counts(source, layer=layer, use_raw=use_raw, policy=counts_policy, genome=genome) as counts:
        check_writable(path.parent, needed_bytes=_bytes_needed(Path(source), counts, model))
        job = prepare_job(
            counts,
            model,
            settings,
            species=species,
            species_key=species_key,
            gene_column=gene_column,
            min_coverage=min_coverage,
            counts_policy=counts_policy,
        )
        say_notes(job, quiet=quiet or rank > 0)
        parts = Parts(path.with_name(path.name + ".parts"))
        if rank > 0:
            parts.join(plan_of(job))
            _fill(job, parts, rank, world, num_workers=num_workers, quiet=True)
            return Outcome(path, None, {}, counts.n_cells, time.monotonic() - started)
        with lock(path.with_name(path.name + ".lock"), wait=False):
            if not resume:
                parts.remove()
            if done := parts.begin(plan_of(job)):
                say(f"resuming: {done} finished blocks of {BLOCK_CELLS} cells are there already", quiet=quiet)
            _fill(job, parts, rank, world, num_workers=num_workers, quiet=quiet)
            parts.wait(len(block_ranges(counts.n_cells)))
            refuse_changed(job)
            health, record = _assemble(
                job, parts, path, source=Path(source), file_format=file_format, key=key_added, overwrite=overwrite
            )
            parts.remove()
    say(health, quiet=quiet)
    return Outcome(path, health, record, counts.n_cells, time.monotonic() - started)


@dataclass(frozen=True)
class Outcome:
    """What `embed_file` did: where the result is, how it looks, what made it (`health` is None on ranks above 0)."""

    path: Path
    health: Health | None
    record: dict[str, Any]
    cells: int
    seconds: float


def embed_counts(
    counts: csr_matrix | npt.NDArray[Any],
    genes: Sequence[str],
    *,
    species: str,
    model: str | Path | Model = DEFAULT_MODEL,
    seed: int = 0,
    replicates: int = 1,
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "auto",
    device: str = "auto",
) -> npt.NDArray[np.float32]:
    """Unit vectors (cells, dim) float32 of counts (cells, genes) whose columns are named by `genes` (ids or symbols).

    Cells without a count on a gene of the species are rows of NaN.

    Raises
    ------
    InputError
        The values are not counts, or too few of the names are genes of the species.
    """
    import pandas as pd
    from anndata import AnnData

    if counts.shape[1] != len(genes):
        msg = f"counts have {counts.shape[1]} columns, genes {len(genes)} names: they must be as many."
        raise InputError(msg)
    matrix = csr_matrix(counts) if not issparse(counts) else counts
    adata = AnnData(matrix, var=pd.DataFrame(index=pd.Index([str(gene) for gene in genes])))
    embed(
        adata,
        model=model,
        species=species,
        seed=seed,
        replicates=replicates,
        batch_size=batch_size,
        precision=precision,
        device=device,
        quiet=True,
    )
    vectors: npt.NDArray[np.float32] = adata.obsm["X_uce"]
    return vectors


def _settings(seed: int, replicates: int, batch_size: int | Literal["auto"], precision: str, device: str) -> Settings:
    return Settings(
        pick_device(device), pick_precision(precision), seed, replicates, None if batch_size == "auto" else batch_size
    )


def _computed(job: Job, *, num_workers: int, quiet: bool) -> Generator[Block, None, None]:
    ranges = block_ranges(job.counts.n_cells)
    stream = stream_blocks(job.counts, job.readers, job.species, ranges, num_workers=num_workers)
    # Closed even when interrupted, so that no thread still reads from a file that is closed next.
    with Progress("embedding", job.counts.n_cells, unit="cells", quiet=quiet) as progress, closing(stream) as blocks:
        for block in blocks:
            progress.advance(len(block.vectors))
            yield block


def _fill(job: Job, parts: Parts, rank: int, world: int, *, num_workers: int, quiet: bool) -> None:
    every = block_ranges(job.counts.n_cells)
    mine = [number for number in range(rank, len(every), world) if not parts.has(number)]
    ranges = [every[number] for number in mine]
    cells = sum(stop - start for start, stop in ranges)
    stream = stream_blocks(job.counts, job.readers, job.species, ranges, num_workers=num_workers)
    with Progress("embedding", cells, unit="cells", quiet=quiet) as progress, closing(stream) as blocks:
        for number, block in zip(mine, blocks, strict=True):
            parts.write(number, block)
            progress.advance(len(block.vectors))


def _assemble(
    job: Job, parts: Parts, path: Path, *, source: Path, file_format: str, key: str, overwrite: bool
) -> tuple[Health, dict[str, Any]]:
    """Judge the finished blocks, and write them as one result of the format asked for."""
    cells = job.counts.n_cells
    count = len(block_ranges(cells))
    summary = [replace(block, vectors=_thin(block.vectors, cells)) for block in parts.blocks(count)]
    health = examine_blocks(job, summary)
    record = make_record(job, summary, health)
    vectors = (block.vectors for block in parts.blocks(count))
    if file_format == "npy":
        write_npy(path, vectors, job.shape, record)
    elif file_format == "parquet":
        write_parquet(path, vectors, job.counts.obs_names, key, record)
    else:
        write_h5ad(
            path,
            job.counts,
            vectors,
            source=source,
            shape=job.shape,
            key=key,
            record=record,
            overwrite_key=overwrite,
        )
    return health, record


def _bytes_needed(source: Path, counts: Counts, model: str | Path | Model) -> int:
    """Bytes of the blocks and of the result beside them; the width of a model that is yet to be loaded is bounded."""
    width = model.config.out_dim if isinstance(model, Model) else 1280
    copied = source.stat().st_size if source.is_file() else 0
    return counts.n_cells * width * 4 * 2 + copied


def _thin(vectors: npt.NDArray[np.float32], n_cells: int) -> npt.NDArray[np.float32]:
    return vectors[:: max(1, n_cells // SAMPLE_CELLS)].copy()


def say_notes(job: Job, *, quiet: bool) -> None:
    """Print what was found in the file: the counts, the species and how it was recognised, the genes."""
    for note in job.counts.notes:
        say(note, quiet=quiet)
    for reader in job.readers.values():
        say(reader.match.sentence(), quiet=quiet)
