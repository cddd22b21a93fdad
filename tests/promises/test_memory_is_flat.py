"""Promise 8: what a run holds in memory does not grow with the cells of the file."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from uce.genes.collection import load_gene_table

GENES, PER_CELL = 800, 60


def write_file(path: Path, cells: int) -> None:
    """A gzip CSR file of `cells` cells, written in pieces; every value is 1 so that it is quick to make."""
    from anndata.io import write_elem
    from pandas import DataFrame, Index

    table = load_gene_table("human")
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", DataFrame(index=Index([str(i) for i in range(cells)])))
        write_elem(file, "var", DataFrame(index=Index(table.ids[:GENES])))
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [cells, GENES]})
        columns = np.sort(np.random.default_rng(0).permuted(np.tile(np.arange(GENES), (256, 1)), axis=1)[:, :PER_CELL])
        tiled = np.resize(columns, (cells, PER_CELL)).ravel().astype(np.int32)
        values = 1 + np.arange(cells * PER_CELL, dtype=np.float32) % 3
        group.create_dataset("data", data=values, compression="gzip", compression_opts=1)
        group.create_dataset("indices", data=tiled, compression="gzip", compression_opts=1)
        group.create_dataset("indptr", data=np.arange(0, cells * PER_CELL + 1, PER_CELL, dtype=np.int64))


def peak_megabytes(source: Path, output: Path, model: Path) -> float:
    code = (
        "import resource, sys, uce\n"
        f"uce.embed_file({str(source)!r}, {str(output)!r}, model={str(model)!r}, species='human', quiet=True)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_eight_times_the_cells_take_the_same_memory(tiny_folder: Path, tmp_path: Path) -> None:
    peaks = []
    for cells in (2_048, 16_384):
        source = tmp_path / f"{cells}.h5ad"
        write_file(source, cells)
        peaks.append(peak_megabytes(source, tmp_path / f"{cells}.out.h5ad", tiny_folder))
    assert peaks[1] < 1.1 * peaks[0]
