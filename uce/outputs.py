"""Finished blocks to one file: the input with one more `obsm`, a bare `.npy`, or Parquet. All or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from uce.errors import OutputExistsError, UsageError
from uce.files import atomic_path, write_json
from uce.rewriting import copy_h5ad, copy_zarr, write_counts

if TYPE_CHECKING:
    from uce.cells.counts import Counts

Vectors = Iterator[npt.NDArray[np.float32]]
SUFFIXES = {"h5ad": ".h5ad", "npy": ".npy", "parquet": ".parquet"}


def check_key(key: str) -> None:
    """Refuse an `obsm` key that a file cannot hold.

    Raises
    ------
    UsageError
        The key is empty or has a slash, which would nest and could not be read back.
    """
    if not key or "/" in key or not key.isprintable():
        msg = f"--key-added {key!r}: must be a plain name without a slash, such as X_uce."
        raise UsageError(msg)


def write_npy(path: Path, vectors: Vectors, shape: tuple[int, int], record: dict[str, Any]) -> None:
    """Write `vectors` as one float32 array of `shape` (cells, dim), and the record beside it as `<path>.json`."""
    with atomic_path(path) as temporary:
        target = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        start = 0
        for block in vectors:
            target[start : start + len(block)] = block
            start += len(block)
        target.flush()
        del target
    write_json(path.with_name(path.name + ".json"), record)


def write_parquet(path: Path, vectors: Vectors, names: npt.NDArray[Any], key: str, record: dict[str, Any]) -> None:
    """Write a column `cell` and a fixed-size list column `key`; the record is in the file's metadata under `uce`.

    Raises
    ------
    UsageError
        pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        msg = "--format parquet: needs pyarrow. Install it with: pip install 'uce[parquet]'"
        raise UsageError(msg) from error
    schema: Any = None
    with atomic_path(path) as temporary:
        writer, start = None, 0
        try:
            for block in vectors:
                cells = pa.array([str(name) for name in names[start : start + len(block)]], pa.string())
                lists = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel(), pa.float32()), block.shape[1])
                if writer is None:
                    schema = pa.schema([("cell", pa.string()), (key, lists.type)], {"uce": json.dumps(record)})
                    writer = pq.ParquetWriter(temporary, schema)
                writer.write_table(pa.table([cells, lists], schema=schema))
                start += len(block)
        finally:
            if writer is not None:
                writer.close()


def write_h5ad(
    path: Path,
    counts: "Counts",
    vectors: Vectors,
    *,
    source: Path,
    shape: tuple[int, int],
    key: str,
    record: dict[str, Any],
    overwrite_key: bool,
) -> None:
    """Write an AnnData file: all that `source` holds, plus `obsm[key]` and `uns["uce"][key]`.

    A `.h5ad` is copied byte for byte, an AnnData zarr element by element; of 10x files the counts that were read, their
    gene names and their cell names are written.
    """
    with atomic_path(path) as temporary:
        if counts.kind == "h5ad":
            copy_h5ad(source, temporary)
        elif counts.kind.startswith("zarr"):
            copy_zarr(source, temporary)
        else:
            write_counts(temporary, counts)
        with h5py.File(temporary, "r+") as file:
            add_embedding(file, vectors, shape=shape, key=key, record=record, overwrite=overwrite_key)


def add_embedding(
    file: h5py.File, vectors: Vectors, *, shape: tuple[int, int], key: str, record: dict[str, Any], overwrite: bool
) -> None:
    """Add `obsm[key]` and `uns["uce"][key]` to an open AnnData file, block by block.

    Raises
    ------
    OutputExistsError
        The file has an `obsm` of this name and `overwrite` is false.
    """
    from anndata.io import write_elem

    for group in ("obsm", "uns"):
        if group not in file:
            write_elem(file, group, {})
    if key in file["obsm"]:
        if not overwrite:
            msg = f"{file.filename}: obsm[{key!r}] exists. Choose another --key-added, or pass --overwrite."
            raise OutputExistsError(msg)
        del file["obsm"][key]
    rows = max(1, min(shape[0], 1024))
    target = file["obsm"].create_dataset(
        key, shape, np.float32, chunks=(rows, shape[1]) if shape[0] else None, fillvalue=np.nan
    )
    target.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    start = 0
    for block in vectors:
        target[start : start + len(block)] = block
        start += len(block)
    if not isinstance(file["uns"].get("uce"), h5py.Group):  # nothing, or no records of ours
        write_elem(file["uns"], "uce", {})
    if key in file["uns"]["uce"]:
        del file["uns"]["uce"][key]
    write_elem(file["uns"]["uce"], key, record)


def output_path(source: str | Path, output: str | Path | None, file_format: str, *, inplace: bool) -> Path:
    """Where the result goes: `output`, or `INPUT.uce.<format>` in the current folder, or the input itself.

    Raises
    ------
    UsageError
        `inplace` with an output or for another format than h5ad, or an output that is the input.
    """
    source = Path(source)
    if file_format not in SUFFIXES:
        msg = f"--format {file_format}: not a format. Use h5ad, npy or parquet."
        raise UsageError(msg)
    if inplace:
        if output is not None or file_format != "h5ad" or source.suffix != ".h5ad":
            msg = f"--inplace: adds to {source} itself, so it goes with a .h5ad input, --format h5ad and no --output."
            raise UsageError(msg)
        return source
    if output is None:
        name = source.name
        for ending in (".gz", ".h5ad", ".h5", ".zip", ".zarr"):
            name = name.removesuffix(ending)
        return Path(f"{name}.uce{SUFFIXES[file_format]}")
    path = Path(output)
    if path.exists() and source.exists() and path.resolve() == source.resolve():
        msg = f"{path}: output and input are one file. Choose another --output, or pass --inplace."
        raise UsageError(msg)
    return path


def obsm_keys(path: Path) -> set[str]:
    """Names in the `obsm` of a `.h5ad`; empty for anything else."""
    if path.suffix != ".h5ad" or not h5py.is_hdf5(path):
        return set()
    with h5py.File(path, "r") as file:
        stored = file.get("obsm")
        if isinstance(stored, h5py.Dataset):  # the layout before anndata 0.7: one table
            return set(stored.dtype.names or ())
        return set(stored) if stored is not None else set()
