"""Cells in, vectors out: `embed` for an AnnData in memory, `embed_file` for files, `embed_counts` for arrays."""

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix, issparse

from uce import ray_engine
from uce.atlas import Fill, Outcome, Target, read_shard, refuse_contradictions, take_part, written_at
from uce.cells.counts import Policy, open_counts
from uce.cells.parts import Block, block_ranges
from uce.devices import check_precision, pick_device
from uce.engines import Settings, stream_blocks
from uce.errors import InputError, OutputExistsError
from uce.genes.resolver import MIN_SHARE
from uce.jobs import Job, Request, examine_blocks, fill, make_record, prepare_job, say_notes, thinned
from uce.model.checkpoint import Model
from uce.outputs import check_key, output_path
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
    compile: bool = False,  # noqa: A002  (torch's own name for it)
    cycles: int | None = None,
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
    batch_size, device, num_workers
        How to compute. They do not change the numbers beyond rounding.
    precision
        `fp32`, `bf16`, or `auto`: bf16 for a model of more than ten million weights, on a device that is faster with
        it, else fp32. It is in the record; vectors of the two have a cosine above .9995.
    compile
        The encoder's blocks through torch.compile, for long runs on a graphics processor.
    cycles
        How often a recursive model runs its blocks; as often as in training if left out. It is in the record.
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
    settings = make_settings(seed, replicates, batch_size, precision, device, compiled=compile, cycles=cycles)
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
        vectors, record = embed_job(job, num_workers=num_workers, quiet=quiet)
    add_to_anndata(adata, vectors, key=key_added, record=record)


def embed_job(job: Job, *, num_workers: int = 1, quiet: bool = False) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Vectors (cells, dim) of an opened job, in memory, and the record of what made them."""
    say_notes(job, quiet=quiet)
    blocks = list(_computed(job, num_workers=num_workers, quiet=quiet))
    vectors = np.concatenate([block.vectors for block in blocks] or [np.zeros(job.shape, np.float32)])
    health = examine_blocks(job, [thinned(block, len(vectors)) for block in blocks])
    say(health, quiet=quiet)
    return vectors, make_record(job, blocks, health)


def add_to_anndata(adata: "AnnData", vectors: npt.NDArray[np.float32], *, key: str, record: dict[str, Any]) -> None:
    """Write `obsm[key]` and, beside the records that are there, `uns["uce"][key]`."""
    adata.obsm[key] = vectors
    there = adata.uns.get("uce")
    adata.uns["uce"] = {**(there if isinstance(there, dict) else {}), key: record}


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
    compile: bool = False,  # noqa: A002  (torch's own name for it)
    cycles: int | None = None,
    num_workers: int = 1,
    file_format: str = "h5ad",
    overwrite: bool = False,
    inplace: bool = False,
    resume: bool = True,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_actors: int | None = None,
    quiet: bool = False,
) -> Outcome:
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
    shard
        `i/N`: compute the i-th (from 0) of N shares of the blocks and leave without a result; a run without `shard`
        computes what is missing and writes it, and so does a shard that finds all blocks there.
    engine
        `local` computes in this process (and in the other ranks of its launcher), `ray` in the actors of a cluster.
    ray_actors
        How many of them; one for each graphics processor or core if left out.

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
    path, source = output_path(source, output, file_format, inplace=inplace), Path(source)
    share = None if shard is None else read_shard(shard)
    refuse_contradictions(shard=share, engine=engine, ray_actors=ray_actors, inplace=inplace, resume=resume)
    target = Target(path, source, file_format, key_added, overwrite, written_at(path))
    target.refuse_existing()
    request = Request(
        source,
        model,
        make_settings(seed, replicates, batch_size, precision, device, compiled=compile, cycles=cycles),
        species=species,
        species_key=species_key,
        gene_column=gene_column,
        min_coverage=min_coverage,
        layer=layer,
        use_raw=use_raw,
        counts_policy=counts_policy,
        genome=genome,
    )
    started = time.monotonic()
    with ExitStack() as stack:
        compute: Fill = partial(fill, num_workers=num_workers, quiet=quiet)
        cluster = stack.enter_context(ray_engine.connect(ray_actors, device)) if engine == "ray" else None
        job = stack.enter_context(request.open())
        if cluster:  # whose devices may be others than this process has
            job = replace(job, settings=replace(job.settings, device=torch.device(cluster.device)))
            settled = replace(request.settings, precision=job.settings.precision)  # which actors could settle otherwise
            compute = partial(ray_engine.compute, cluster, replace(request, settings=settled), quiet=quiet)
        outcome = take_part(job, target, compute, share, num_workers=num_workers, resume=resume, quiet=quiet)
    return replace(outcome, seconds=time.monotonic() - started)


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


def make_settings(
    seed: int,
    replicates: int,
    batch_size: int | Literal["auto"],
    precision: str,
    device: str,
    *,
    compiled: bool = False,
    cycles: int | None = None,
) -> Settings:
    """How to compute, from the words of the options.

    Raises
    ------
    UsageError
        A value that cannot be, or a device that is not there.
    """
    size = None if batch_size == "auto" else batch_size
    return Settings(pick_device(device), check_precision(precision), seed, replicates, size, compiled, cycles)


def _computed(job: Job, *, num_workers: int, quiet: bool) -> Generator[Block, None, None]:
    ranges = block_ranges(job.counts.n_cells)
    stream = stream_blocks(job.counts, job.readers, job.species, ranges, num_workers=num_workers)
    # Closed even when interrupted, so that no thread still reads from a file that is closed next.
    with Progress("embedding", job.counts.n_cells, unit="cells", quiet=quiet) as progress, closing(stream) as blocks:
        for block in blocks:
            progress.advance(len(block.vectors))
            yield block
